"""Reports: the evidence of a command as JSON. Counts are stored, percentages derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.device import device_name, versions
from snnprune.files import sha256_of
from snnprune.launch import command_line

if TYPE_CHECKING:
    import torch

    from snnprune.jobs.subjects.subject import Subject

SCHEMA = 1  # raised when a reader of the last one would be misled


def report(
    command: str,
    *,
    device: torch.device,
    seed: int,
    inputs: Sequence[Mapping[str, str]] = (),
    warnings: Sequence[str] = (),
    excluded: Sequence[str] = (),
    **findings: Any,
) -> dict[str, Any]:
    """The frame that every report shares, around what a command found out."""
    return {
        "schema": SCHEMA,
        "tool_version": versions()["snnprune"],
        "command": command,
        "command_line": command_line(),
        "ok": True,
        "inputs": list(inputs),
        "seed": seed,
        "device": device_name(device),
        "versions": versions(),
        **findings,
        "excluded": list(excluded),
        "warnings": list(warnings),
    }


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
        excluded=subject.prunable.excluded,
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
        "data": data and {"name": data.name, "validation": data.validation, "seed": data.seed},
    }


def _forward(subject: Subject) -> dict[str, str]:
    """The function that ran it, where it is the user's own."""
    named = subject.options.forward
    return {} if named is None else {"forward": named}


def file_entry(path: Path, sha256: str | None = None) -> dict[str, str]:
    """A file by path and hash."""
    return {"path": str(path), "sha256": sha256 or sha256_of(path)}
