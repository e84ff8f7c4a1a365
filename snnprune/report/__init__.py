"""Reports as JSON, and what all of them share; from them pages and pictures are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snnprune.data import IMAGES, name_samples
from snnprune.errors import Note
from snnprune.files.reading import hash_file
from snnprune.runtime import collect_versions, device_name, format_command_line

if TYPE_CHECKING:
    import torch

    from snnprune.measure.agreement import Agreement
    from snnprune.measure.evaluation import Evaluation


class Config(Protocol):
    """What was taken from a file of settings."""

    @property
    def note(self) -> str:
        """Which settings, and of which file."""
        ...

    def describe(self) -> dict[str, Any]:
        """The same for a report."""
        ...


SCHEMA = 1  # raised when a reader of the last one would be misled


def make_report(
    command: str,
    *,
    device: torch.device | None,
    seed: int,
    inputs: Sequence[Mapping[str, str]] = (),
    warnings: Sequence[str] = (),
    excluded: Sequence[str] = (),
    config: Config | None = None,
    **findings: Any,
) -> dict[str, Any]:
    """The frame that every report shares, around what a command found out.

    `device` is None for a command that went without torch. `warnings` that are a `Note` go under
    `notes`. `config` is what was taken from a file of settings.
    """
    used = {} if config is None else {"config": config.describe()}
    told = [*warnings, *([] if config is None else [Note(config.note)])]
    return {
        "schema": SCHEMA,
        "tool_version": collect_versions()["snnprune"],
        "command": command,
        "command_line": format_command_line(),
        "ok": True,
        "inputs": list(inputs),
        "seed": seed,
        "device": "cpu" if device is None else device_name(device),
        "versions": collect_versions(),
        **findings,
        **used,
        "excluded": list(excluded),
        "notes": list(dict.fromkeys(line for line in told if isinstance(line, Note))),
        "warnings": [line for line in told if not isinstance(line, Note)],
    }


def list_told(report: Mapping[str, Any]) -> list[str]:
    """The warnings and notes of a report, as `make_report` takes them for another."""
    return [*map(Note, report.get("notes", ())), *report["warnings"]]


def name_samples_of(report: Mapping[str, Any]) -> str:
    """What the samples are called that a report is about: `images` or `samples`."""
    data = report.get("data")
    return name_samples(data["name"]) if data else IMAGES


def make_file_entry(path: Path, sha256: str | None = None) -> dict[str, str]:
    """A file by path and hash."""
    return {"path": str(path), "sha256": sha256 or hash_file(path)}


def describe_evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """An evaluation as counts, with accuracy and loss beside them."""
    if evaluation is None:
        return None
    return {
        "samples": evaluation.samples,
        "labelled": evaluation.labelled,
        "correct": evaluation.correct,
        "loss_sum": evaluation.loss_sum,
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "firing_rates": evaluation.firing_rates,
        "activity": {
            name: {
                "channels": found.channels,
                "silent": found.silent,
                "saturated": found.saturated,
            }
            for name, found in evaluation.activity.items()
        },
        "readout": evaluation.readout,
        "time_steps": evaluation.time_steps,
        "answers": evaluation.answers,
        "classes": evaluation.classes,
        "images": evaluation.images,
    }


FEW = 20
"""On fewer samples a silent neuron or one answer is no sign of anything."""


def doubt_evaluation(
    evaluation: Mapping[str, Any] | None, *, of: str = "the network", noun: str
) -> list[str]:
    """What an evaluation hints at: neurons without a spike, one answer or one label for all."""
    if evaluation is None or evaluation["samples"] < FEW:
        return []
    found = _doubt_silent(evaluation["firing_rates"], evaluation["samples"], of, noun)
    if evaluation.get("answers") == 1 and evaluation.get("classes", 0) > 1:
        found.append(
            f"{of} answers one class for all {evaluation['labelled']:,} {noun}, which have "
            f"{evaluation['classes']} classes"
        )
    if evaluation.get("classes") == 1:
        found.append(
            f"all {evaluation['labelled']:,} {noun} are of one class: "
            "their accuracy tells nothing of the others"
        )
    return found


def doubt_agreement(agreement: Agreement | None, names: tuple[str, str], *, noun: str) -> list[str]:
    """What an agreement hints at, of the networks that are called by `names`."""
    if agreement is None or agreement.samples < FEW:
        return []
    found = []
    for which, (name, classes) in enumerate(zip(names, agreement.classes, strict=True)):
        rates = {neuron: spikes.rates[which] for neuron, spikes in agreement.spikes.items()}
        found += _doubt_silent(rates, agreement.samples, name, noun)
        if classes == 1:
            found.append(f"{name} answers one class for all {agreement.samples:,} {noun}")
    return found


def _doubt_silent(rates: Mapping[str, float], samples: int, of: str, noun: str) -> list[str]:
    silent = [name for name, rate in rates.items() if rate == 0]
    if not silent:
        return []
    named = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
    return [f"{named}: no spike on {samples:,} {noun} of {of}"]
