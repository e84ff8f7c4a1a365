"""Reports of commands that work on one checkpoint, or on a network and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snnprune.errors import InputError
from snnprune.export.network import Running, first_calls
from snnprune.jobs.targets.opening import example_of, open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.target import Subject
from snnprune.report.frame import file_entry, report

SAMPLES = 16


def run_once(options: SubjectOptions, *, field: str) -> tuple[Subject, Running]:
    """The network of a checkpoint and what it does on a batch of its data, or a blank picture.

    Raises:
        InputError: there is no network, or nothing to run it on; or as `open_subject`.
    """
    subject = open_subject(options)
    if subject.network is None or subject.spec is None:
        raise InputError(
            subject.missing or "no network",
            file=subject.checkpoint.path,
            field=field,
            hint="give --data" if subject.spec else "give --model",
        )
    example = example_of(subject.spec, subject.data, subject.device, count=SAMPLES)
    assert example is not None, "it was traced with one"
    return subject, first_calls(subject.network, example.x)


def report_on(
    subject: Subject, command: str, *, warnings: Sequence[str] = (), **findings: Any
) -> dict[str, Any]:
    """The report of a command that worked on one checkpoint."""
    return report(
        command,
        device=subject.device,
        seed=subject.options.seed,
        inputs=[file_entry(subject.checkpoint.path, subject.checkpoint.sha256)],
        warnings=(*subject.checkpoint.notes, *warnings),
        excluded=subject.prunable.find_excluded(),
        **about(subject),
        **findings,
    )


def about(subject: Subject | None) -> dict[str, Any]:
    """Which model and data a report is about, if any."""
    if subject is None:
        return {"model": None, "data": None}
    model, data = subject.spec, subject.data_spec
    return {
        "model": model and {"name": model.name, "args": dict(model.args), **_forward(subject)},
        "data": data and data.as_dict(),
    }


def _forward(subject: Subject) -> dict[str, str]:
    """The function that ran it, where it is the user's own."""
    named = subject.options.forward
    return {} if named is None else {"forward": named}
