"""`snnprune export`: the same weights in another file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.containers import files_of, read_checkpoint, require_plain
from snnprune.checkpoint.naming import is_prunable
from snnprune.checkpoint.packed import pack
from snnprune.checkpoint.packing import AS_THEY_ARE, PRECISIONS
from snnprune.errors import InputError, UsageError
from snnprune.errors.text import did_you_mean
from snnprune.export.exporters import RecordedNetwork, record_first_calls
from snnprune.export.formats import FORMATS, ExportContents, Sizes, measure_sizes
from snnprune.files.reading import changed_error
from snnprune.files.writing import require_free
from snnprune.jobs.options import ExportOptions
from snnprune.jobs.targets.opening import open_target, read_example
from snnprune.jobs.targets.reporting import describe_target
from snnprune.jobs.targets.target import Target
from snnprune.report.frame import make_file_entry, make_report

SAMPLES = 16  # of the batch that a file is held against


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What came of it."""

    sizes: Sizes
    written: int
    """Bytes of the file."""
    notes: tuple[str, ...]
    report: dict[str, Any]


def export_checkpoint(options: ExportOptions) -> ExportResult:
    """Write a checkpoint to another kind of file, and measure what each kind weighs.

    Raises:
        UsageError: format, precision or the name of the output do not go together.
        InputError: the checkpoint cannot be read, or does not fit the format.
        OutputError: the output is in the way or cannot be written.
    """
    _require_sense(options)
    checkpoint = read_checkpoint(options.checkpoint, allow_nonfinite=True, entry=options.state_dict)
    require_plain(checkpoint)
    inputs = files_of(options.checkpoint)
    require_free(options.out, force=options.force, inputs=inputs)
    tensors = checkpoint.in_file(checkpoint.tensors)
    weights = [key for key, tensor in tensors.items() if is_prunable(key, tensor)]
    try:
        target, seen = _record_network(options)
        if target is not None and target.checkpoint.sha256 != checkpoint.sha256:
            raise changed_error(options.checkpoint)  # the network was read from it once more
        packing = pack(tensors, precision=options.values, lossy=weights)
        found = ExportContents(
            tensors=tensors, metadata=checkpoint.metadata, packing=packing, running=seen
        )
        sizes = measure_sizes(tensors.values(), packing)
        told = FORMATS[options.to].write(options.out, found) or ()
    except InputError as error:
        error.file = error.file or str(options.checkpoint)
        raise
    known = target.checkpoint if target else checkpoint
    notes = (*known.notes, *_note_negative_zeros(options, tensors, weights), *told)
    return ExportResult(
        sizes=sizes,
        written=options.out.stat().st_size,
        notes=notes,
        report=make_report(
            "export",
            device=torch.device("cpu"),
            seed=0,
            inputs=[make_file_entry(checkpoint.path, checkpoint.sha256)],
            warnings=notes,
            **describe_target(target),
            container=checkpoint.container,
            to=options.to,
            values=options.values,
            sizes=sizes.as_dict(),
            written_bytes=options.out.stat().st_size,
            packed=sorted(packing.table),
            outputs=[make_file_entry(options.out)],
        ),
    )


def _record_network(options: ExportOptions) -> tuple[Target, RecordedNetwork] | tuple[None, None]:
    """The network, and what it does on a batch of its data or a blank picture, where it is needed.

    Raises:
        InputError: there is no network, or nothing to run it on; or as `open_target`.
    """
    if not FORMATS[options.to].needs_network:
        return None, None
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


def _note_negative_zeros(
    options: ExportOptions, tensors: Mapping[str, Tensor], weights: list[str]
) -> tuple[str, ...]:
    """A note where products with a mask have left -0.0, which an exact copy holds as a value."""
    count = sum(int(((t := tensors[key]) == 0).logical_and(t.signbit()).sum()) for key in weights)
    if not count or options.to != "packed" or options.values != AS_THEY_ARE:
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
    if FORMATS[options.to].needs_network:
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
