"""What all gates together come to."""

from __future__ import annotations

from collections.abc import Sequence

from snnprune.errors import GateError, InputError, SnnpruneError
from snnprune.gates.gate import Limit, Verdict
from snnprune.gates.measured import Measured


def judge(limits: Sequence[Limit], measured: Measured) -> tuple[Verdict, ...]:
    """Each of them, whatever came of the others."""
    return tuple(limit.verdict(measured) for limit in limits)


def error_of(verdicts: Sequence[Verdict], file: object) -> SnnpruneError | None:
    """The error of gates that are not met; before it, that of gates that could not be judged."""
    unknown = [one for one in verdicts if one.met is None]
    failed = [one for one in verdicts if one.met is False]
    if unknown:
        return InputError(
            f"cannot be judged: {unknown[0].found}{_others(unknown)}",
            file=file,
            field=f"--{unknown[0].gate}",
            hint="a gate that cannot be judged is not met",
        )
    if failed:
        named = ", ".join(f"--{one.gate} {one.limit} ({one.found})" for one in failed)
        return GateError(f"{len(failed)} of {len(verdicts)} gates not met: {named}", file=file)
    return None


def _others(verdicts: Sequence[Verdict]) -> str:
    names = ", ".join(f"--{one.gate}" for one in verdicts[1:])
    return f"; nor can {names}" if names else ""
