"""`env`: what a bug report needs."""

from snnprune.cli.flags import ShowFlags
from snnprune.cli.options import expand_options


@expand_options
def env(show: ShowFlags) -> None:
    """Show versions, devices and paths."""
    from snnprune.cli.console import Screen
    from snnprune.jobs.environment import environment

    found = environment()
    width = max(map(len, found))
    lines = [f"{name:{width}}  {value}" for name, value in found.items()]
    Screen(show).result(*lines, report={"ok": True, **found})
