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
        InputError: there is no network, or nothing to run it on; or as `open_subject`.
    """
    subject = open_target(options)
    if subject.network is None or subject.spec is None:
        raise InputError(
            subject.missing or "no network",
            file=subject.checkpoint.path,
            field=field,
            hint="give --data" if subject.spec else "give --model",
        )
    example = read_example(subject.spec, subject.data, subject.device, count=SAMPLES)
    assert example is not None, "it was traced with one"
    return subject, record_first_calls(subject.network, example.x)


def make_target_report(
    subject: Target, command: str, *, warnings: Sequence[str] = (), **findings: Any
) -> dict[str, Any]:
    """The report of a command that worked on one checkpoint."""
    return make_report(
        command,
        device=subject.device,
        seed=subject.options.seed,
        inputs=[make_file_entry(subject.checkpoint.path, subject.checkpoint.sha256)],
        warnings=(*subject.checkpoint.notes, *warnings),
        excluded=subject.prunable.find_excluded(),
        **describe_target(subject),
        **findings,
    )


def describe_target(subject: Target | None) -> dict[str, Any]:
    """Which model and data a report is about, if any."""
    if subject is None:
        return {"model": None, "data": None}
    model, data = subject.spec, subject.data_spec
    return {
        "model": model
        and {"name": model.name, "args": dict(model.args), **_describe_forward(subject)},
        "data": data and data.as_dict(),
    }


def _describe_forward(subject: Target) -> dict[str, str]:
    """The function that ran it, where it is the user's own."""
    named = subject.options.forward
    return {} if named is None else {"forward": named}
