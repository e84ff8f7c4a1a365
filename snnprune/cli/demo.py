"""`demo`: the whole story in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import ShowFlags
from snnprune.cli.options import expand_options
from snnprune.jobs.subjects.options import DeviceOptions


@expand_options
def demo(
    run: DeviceOptions,
    show: ShowFlags,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything it makes.", readable=False)
    ] = Path("snnprune-demo"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
) -> None:
    """Train, calibrate, prune, repair and evaluate on bundled images."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import demo_table
    from snnprune.jobs.demo import DemoOptions, run_demo

    screen = Screen(show)
    options = DemoOptions(out=out, seed=run.seed, device=run.device, force=force)
    found = run_demo(options, screen.progress())
    lines = [
        f"dense accuracy {found.dense.accuracy:.2%} ({found.dense.labelled:,} test images, "
        f"{found.minutes:.1f} minutes in all)",
        f"wrote {out}: report.html, report.md, report.json, accuracy.png, accuracy.svg, table.md, "
        "training/, pruned/",
    ]
    screen.result(demo_table(found.points), *lines, report=found.report)
