"""`snnprune export`: the same weights in another file. Importing this imports no torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.containers import (
    files_of,
    hash_checkpoint,
    read_checkpoint,
    require_plain,
)
from snnprune.checkpoint.naming import is_prunable, judge_values
from snnprune.checkpoint.packing import AS_THEY_ARE, PRECISIONS, StoredPacker
from snnprune.checkpoint.stored import StoredBytes, StoredCheckpoint, open_stored
from snnprune.errors import InputError, UsageError, did_you_mean
from snnprune.export import FORMATS, WHOLE, ExportContents, Sizes, measure_sizes
from snnprune.files.reading import BackgroundHash, changed_error
from snnprune.files.writing import replace_together, require_free
from snnprune.jobs.check import find_chip_limit, fit_target
from snnprune.jobs.options import ExportOptions
from snnprune.jobs.targets.reporting import describe_target
from snnprune.report import make_file_entry, make_report
from snnprune.report.verdicts import Measurements, judge, make_gate_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from snnprune.chips.rules import ChipFit
    from snnprune.export.exporters import RecordedNetwork
    from snnprune.jobs.targets.target import Target

SAMPLES = 16  # of the batch that a file is held against
PACKED = "packed"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What came of it."""

    sizes: Sizes
    written: int
    """Bytes of the file."""
    notes: tuple[str, ...]
    chip: ChipFit | None
    """How it fits the chip, where one is named."""
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """What was found while the file was written."""

    container: str
    sha256: str
    sizes: Sizes
    packed: Collection[str]
    """Of the tensors, by their names in the file, those that packing makes smaller."""
    notes: tuple[str, ...]
    device: torch.device | None = None
    target: Target | None = None
    """The network, where the format needs it."""


def export_checkpoint(options: ExportOptions) -> ExportResult:
    """Write a checkpoint to another kind of file, and measure what each kind weighs.

    Raises:
        UsageError: format, precision or the name of the output do not go together.
        InputError: the checkpoint cannot be read, or does not fit the format.
        OutputError: the output is in the way or cannot be written.
    """
    _require_sense(options)
    require_free(options.out, force=options.force, inputs=files_of(options.checkpoint))
    fit = _require_fit(options)
    stored = _open_packable(options)
    found = _export_tensors(options) if stored is None else _export_stored(options, stored)
    written = options.out.stat().st_size
    return ExportResult(
        sizes=found.sizes,
        written=written,
        notes=found.notes,
        chip=fit,
        report=make_report(
            "export",
            device=found.device,
            seed=0,
            inputs=[make_file_entry(options.checkpoint, found.sha256)],
            warnings=found.notes,
            **describe_target(found.target),
            container=found.container,
            to=options.to,
            values=options.values,
            sizes=found.sizes.as_dict(),
            written_bytes=written,
            packed=sorted(found.packed),
            chip=fit and asdict(fit),
            outputs=[make_file_entry(options.out)],
        ),
    )


def _require_fit(options: ExportOptions) -> ChipFit | None:
    """How the network fits the chip, where one is named.

    Raises:
        GateError: it does not; what does not is said.
        InputError: there is no network, or nothing to run it on.
    """
    chip = find_chip_limit(options.limits)
    if chip is None:
        return None
    from snnprune.jobs.targets.opening import open_target

    target = open_target(options.target)
    fit = fit_target(target, chip)
    found = Measurements(layers={}, size=0, chip=fit, missing={"chip": target.missing or "no data"})
    error = make_gate_error(judge([chip], found), options.checkpoint)
    if error is not None:
        error.hint = error.hint or f"see check --chip {chip.text}, or prune --chip {chip.text}"
        raise error
    return fit


def _open_packable(options: ExportOptions) -> StoredCheckpoint | None:
    """The checkpoint in its file, where it can be packed from there; else None."""
    exactly = options.to == PACKED and options.values == AS_THEY_ARE
    return open_stored(options.checkpoint) if exactly and options.state_dict is None else None


def _export_stored(options: ExportOptions, checkpoint: StoredCheckpoint) -> _Exported:
    """Pack a file without torch, each value read once."""
    path, container = checkpoint.path, checkpoint.container
    packer, tensors = StoredPacker(checkpoint), checkpoint.tensors
    with replace_together(options.out) as (out,), checkpoint.steady.hold():
        sha256 = BackgroundHash(path, partial(hash_checkpoint, path, container))
        packing = packer.pack()
        odd = judge_values(tensors, packer.counts.__getitem__, path, allow_nonfinite=True)
        raw = [StoredBytes(tensor) for tensor in tensors.values()]
        sizes = measure_sizes(raw, packing, whole=_choose_whole(options))
        packing.write(out, checkpoint.metadata)
        hashed = sha256.result()
    names = checkpoint.names
    weights = [key for key, tensor in tensors.items() if is_prunable(names[key], tensor)]
    minus = sum(packer.negative_zeros[key] for key in weights)
    return _Exported(
        container=container,
        sha256=hashed,
        sizes=sizes,
        packed=packing.table,
        notes=(*checkpoint.describe_notes(odd), *_note_negative_zeros(minus)),
    )


def _export_tensors(options: ExportOptions) -> _Exported:
    """The same of any checkpoint and to any format, in memory."""
    import torch

    from snnprune.checkpoint.packed import pack
    from snnprune.checkpoint.safetensors import list_bytes

    checkpoint = read_checkpoint(options.checkpoint, allow_nonfinite=True, entry=options.state_dict)
    require_plain(checkpoint)
    tensors = checkpoint.in_file(checkpoint.tensors)
    weights = [key for key, tensor in tensors.items() if is_prunable(key, tensor)]
    with _name_file_in_errors(options.checkpoint):
        target, seen = _record_network(options)
        if target is not None and target.checkpoint.sha256 != checkpoint.sha256:
            raise changed_error(options.checkpoint)  # the network was read from it once more
        packing = pack(tensors, precision=options.values, lossy=weights)
        contents = ExportContents(
            tensors=tensors, metadata=checkpoint.metadata, packing=packing, running=seen
        )
        raw = list_bytes(tensors.values())
        sizes = measure_sizes(raw, packing, whole=_choose_whole(options))
        told = FORMATS[options.to].write(options.out, contents) or ()
    if options.to == PACKED and options.values == AS_THEY_ARE:
        minus = sum(_count_negative_zeros(tensors[key]) for key in weights)
        told = (*_note_negative_zeros(minus), *told)
    return _Exported(
        container=checkpoint.container,
        sha256=checkpoint.sha256,
        sizes=sizes,
        packed=packing.table,
        notes=(*(target.checkpoint if target else checkpoint).notes, *told),
        device=torch.device("cpu"),
        target=target,
    )


@contextlib.contextmanager
def _name_file_in_errors(path: Path) -> Iterator[None]:
    """An error in the block that names no file is of this one."""
    try:
        yield
    except InputError as error:
        error.file = error.file or str(path)
        raise


def _choose_whole(options: ExportOptions) -> float:
    """Up to how many bytes gzip and zstd are tried on all of them."""
    return math.inf if options.exact_sizes else WHOLE


def _record_network(options: ExportOptions) -> tuple[Target, RecordedNetwork] | tuple[None, None]:
    """The network, and what it does on a batch of its data or a blank picture, where it is needed.

    Raises:
        InputError: there is no network, or nothing to run it on; or as `open_target`.
    """
    if not FORMATS[options.to].needs_network:
        return None, None
    from snnprune.export.exporters import record_first_calls
    from snnprune.jobs.targets.opening import open_target, read_example

    target = open_target(options.target)
    if target.network is None or target.spec is None:
        raise InputError(
            target.missing or "no network",
            file=target.checkpoint.path,
            field=f"--to {options.to}",
            hint="give --data" if target.spec else "give --model",
        )
    example = read_example(target.spec, target.data, target.device, count=SAMPLES)
    assert example is not None, "it was traced with one"
    return target, record_first_calls(target.network, example.x)


def _count_negative_zeros(weight: Tensor) -> int:
    return int((weight == 0).logical_and(weight.signbit()).sum())


def _note_negative_zeros(count: int) -> tuple[str, ...]:
    """A note where products with a mask have left -0.0, which an exact copy holds as a value."""
    if not count:
        return ()
    return (f"{count:,} weights are -0.0, stored as values; --values float32 stores them as 0",)


def _require_sense(options: ExportOptions) -> None:
    if options.to not in FORMATS:
        raise UsageError(
            f"unknown format {options.to!r}", field="--to", hint=did_you_mean(options.to, FORMATS)
        )
    if options.values not in PRECISIONS:
        raise UsageError(
            f"unknown precision {options.values!r}",
            field="--values",
            hint=did_you_mean(options.values, PRECISIONS),
        )
    if options.values != AS_THEY_ARE and options.to != "packed":
        raise UsageError(
            f"a {options.to} file holds the values as they are",
            field="--values",
            hint="leave it out, or choose --to packed",
        )
    _require_no_network(options)
    fitting = FORMATS[options.to].suffixes
    if options.out.suffix.lower() not in fitting:
        raise UsageError(
            f"{options.out.name}: a {options.to} file ends in {' or '.join(fitting)}", field="-o"
        )


def _require_no_network(options: ExportOptions) -> None:
    """Refuse flags that say something of the network, where none is built."""
    if FORMATS[options.to].needs_network or options.chip is not None:
        return
    values = {
        "--model": options.model,
        "--model-arg": options.model_args,
        "--forward": options.forward,
        "--data": options.data,
    }
    for flag, value in values.items():
        if value:
            raise UsageError(
                f"a {options.to} file is made of tensors alone",
                field=flag,
                hint="leave it out, or choose --to nir or onnx",
            )
