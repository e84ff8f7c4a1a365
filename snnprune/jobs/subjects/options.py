"""What the command line says of the checkpoint that a command works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snnprune.checkpoint import files_of


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    """What the command line says of the subject; None is left to the file's own metadata."""

    checkpoint: Path
    model: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    forward: str | None = None
    """`file.py:function` that runs a batch; a file never names one."""
    readout: str = "auto"
    data: str | None = None
    test_data: str | None = None
    """Another set, whose images are those of the test."""
    eval_data: str | None = None
    """Another set, whose images take the place of validation images."""
    hold_out: float = 0.0
    """The part of the user's own images that is set aside where nothing else is to measure on."""
    learnt_from: tuple[str, ...] = ()
    """Sets that statistics in a file were taken on."""
    data_root: Path | None = None
    download: bool = False
    state_dict: str | None = None
    """Which of the file's state dicts is meant."""
    allow_nonfinite: bool = False
    exclude: tuple[str, ...] = ()
    """Patterns of weights that are left alone."""
    links: Mapping[str, str] = field(default_factory=dict)
    """The neuron that a weight drives, `none` for none, by weight key."""
    strict: bool = False
    device: str = "auto"
    batch_size: int = 128
    samples: int = 1024
    seed: int = 0

    def list_inputs(self) -> list[Path]:
        """The files that are read, none of which may be the output."""
        sets = filter(None, (self.data, self.test_data, self.eval_data))
        named = (name.partition(":") for name in sets)
        places = [Path(place) for form, _, place in named if form == "tensors"]
        return [*files_of(self.checkpoint), *places]
