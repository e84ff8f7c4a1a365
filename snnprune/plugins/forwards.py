"""The built-in ways to run a batch, by name; nothing here imports torch."""

from snnprune.errors import error_class_for
from snnprune.errors.text import did_you_mean
from snnprune.plugins.user_code import is_reference

WHOLE, REPEAT, STEPS = "whole", "repeat", "steps"
NAMES = {
    WHOLE: "the module is called once, with x",
    f"{REPEAT}:T": "with the same x T times, a call for each time step",
    STEPS: "with x[0], x[1], ... of x (T, N, ...), a call for each time step",
}


def require_forward(name: str | None, *, field: str = "--forward") -> None:
    """Refuse an unknown name before any work is done; nothing of the user's is imported.

    Raises:
        UsageError: it is none of `NAMES` and no reference to a function, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if name is None or name in (WHOLE, STEPS) or parse_repeats(name, field=field):
        return
    if not is_reference(name):
        raise error_class_for(field)(
            f"unknown way to run {name!r}",
            field=field,
            hint=f"name the function too: {name}:FUNCTION"
            if name.endswith(".py")
            else did_you_mean(name, [*NAMES, "file.py:function"]),
        )


def parse_repeats(name: str, *, field: str = "--forward") -> int | None:
    """T of `repeat:T`; None for another name.

    Raises:
        UsageError: T is no number of time steps, and `field` is a flag.
        InputError: likewise, in a file.
    """
    kind, _, count = name.partition(":")
    if kind != REPEAT:
        return None
    if not (count.isdecimal() and count.isascii()) or int(count) < 1:
        raise error_class_for(field)(
            f"{name!r} has no number of time steps", field=field, hint="write it as repeat:4"
        )
    return int(count)


def is_own_function(name: str | None) -> bool:
    """Whether a function of the user's is named, which may take batches of any kind."""
    built_in = name is None or name in (WHOLE, STEPS) or name.partition(":")[0] == REPEAT
    return not built_in
