"""Reports of commands that work on one checkpoint, or on a network and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snnprune.errors import InputError
from snnprune.export.network import RecordedNetwork, record_first_calls
from snnprune.jobs.targets.opening import open_target, read_example
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.target import Target
from snnprune.report.frame import make_file_entry, make_report

SAMPLES = 16


def run_once(options: TargetOptions, *, field: str) -> tuple[Target, RecordedNetwork]:
    """The network of a checkpoint and what it does on a batch of its data, or a blank picture.

    Raises:
        InputError: there is no network, or nothing to run it on; or as `open_target`.
    """
    target = open_target(options)
    if target.network is None or target.spec is None:
        raise InputError(
            target.missing or "no network",
            file=target.checkpoint.path,
            field=field,
            hint="give --data" if target.spec else "give --model",
        )
    example = read_example(target.spec, target.data, target.device, count=SAMPLES)
    assert example is not None, "it was traced with one"
    return target, record_first_calls(target.network, example.x)


def make_target_report(
    target: Target, command: str, *, warnings: Sequence[str] = (), **findings: Any
) -> dict[str, Any]:
    """The report of a command that worked on one checkpoint."""
    return make_report(
        command,
        device=target.device,
        seed=target.options.seed,
        inputs=[make_file_entry(target.checkpoint.path, target.checkpoint.sha256)],
        warnings=(*target.checkpoint.notes, *warnings),
        excluded=target.prunable.find_excluded(),
        **describe_target(target),
        **findings,
    )


def describe_target(target: Target | None) -> dict[str, Any]:
    """Which model and data a report is about, if any."""
    if target is None:
        return {"model": None, "data": None}
    model, data = target.spec, target.data_spec
    return {
        "model": model
        and {"name": model.name, "args": dict(model.args), **_describe_forward(target)},
        "data": data and data.as_dict(),
    }


def _describe_forward(target: Target) -> dict[str, str]:
    """The function that ran it, where it is the user's own."""
    named = target.options.forward
    return {} if named is None else {"forward": named}
