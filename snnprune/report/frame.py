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


def file_entry(path: Path, sha256: str | None = None) -> dict[str, str]:
    """A file by path and hash."""
    return {"path": str(path), "sha256": sha256 or sha256_of(path)}
