"""Reports of commands that work on one checkpoint, or on a network and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snnprune.jobs.subjects.subject import Subject
from snnprune.report import file_entry, report


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
