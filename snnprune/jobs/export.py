"""`snnprune export`: the same weights in another file. Importing this imports no torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.containers import (
    files_of,
    hash_checkpoint,
    read_checkpoint,
    require_plain,
)
from snnprune.checkpoint.header import PARTNER
from snnprune.checkpoint.naming import is_prunable, judge_values
from snnprune.checkpoint.packing import AS_THEY_ARE, PRECISIONS, StoredPacker
from snnprune.checkpoint.stored import StoredBytes, StoredCheckpoint, open_stored
from snnprune.errors import InputError, Note, UsageError, did_you_mean
from snnprune.export import (
    FORMATS,
    WHOLE,
    ChainCheck,
    ExportContents,
    Sizes,
    Written,
    measure_sizes,
)
from snnprune.files.reading import BackgroundHash, changed_error
from snnprune.files.writing import replace_together, require_free
from snnprune.jobs.check import find_chip_limit, fit_target
from snnprune.jobs.options import ExportOptions
from snnprune.jobs.prune.options import OutputPaths
from snnprune.jobs.targets.reporting import describe_target
from snnprune.report import make_file_entry, make_report
from snnprune.report.verdicts import Measurements, judge, make_gate_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from snnprune.checkpoint.checkpoint import Checkpoint
    from snnprune.chips.check import ChipFit
    from snnprune.export.exporters import RecordedNetwork
    from snnprune.jobs.targets.target import Target
    from snnprune.pruning.repair.quantize import IntegerWeight

SAMPLES = 16  # of the batch that a file is held against
PACKED = "packed"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What came of it."""

    sizes: Sizes
    written: int
    """Bytes of the file."""
    check: ChainCheck | None
    """How near a chain of layers and neurons is to its network, where that is what was written."""
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
    bits: int | None = None
    check: ChainCheck | None = None
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
        check=found.check,
        notes=found.notes,
        chip=fit,
        report=make_report(
            "export",
            device=found.device,
            seed=0,
            inputs=[make_file_entry(options.checkpoint, found.sha256)],
            warnings=found.notes,
            config=options.used,
            **describe_target(found.target),
            container=found.container,
            to=options.to,
            values=options.values,
            bits=found.bits,
            sizes=found.sizes.as_dict(),
            chain=None if found.check is None else asdict(found.check),
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
        target = _open_network(options)
        if target is not None and target.checkpoint.sha256 != checkpoint.sha256:
            raise changed_error(options.checkpoint)  # the network was read from it once more
        grid = _choose_grid(options, checkpoint, target)
        seen = None if target is None else _record_network(target, grid.weights)
        packing = pack(tensors, precision=options.values, lossy=weights)
        contents = ExportContents(
            tensors=tensors,
            metadata=checkpoint.metadata | ({PARTNER: checkpoint.sha256} if grid.own else {}),
            packing=packing,
            running=seen,
            bits=grid.bits,
            integers=grid.tensors,
        )
        raw = list_bytes(tensors.values())
        sizes = measure_sizes(raw, packing, whole=_choose_whole(options))
        written = FORMATS[options.to].write(options.out, contents) or Written()
    told = written.notes
    if options.to == PACKED and options.values == AS_THEY_ARE:
        minus = sum(_count_negative_zeros(tensors[key]) for key in weights)
        told = (*_note_negative_zeros(minus), *told)
    return _Exported(
        container=checkpoint.container,
        sha256=checkpoint.sha256,
        sizes=sizes,
        packed=packing.table,
        notes=(*(target.checkpoint if target else checkpoint).notes, *grid.notes, *told),
        bits=grid.bits,
        check=written.check,
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


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """The integers of weights, where the format takes some."""

    bits: int | None = None
    weights: Mapping[str, IntegerWeight] = field(default_factory=dict)
    """By the keys of the network, or where there is none of the file."""
    own: bool = False
    """Whether they are the weights of the file, bit for bit."""
    notes: tuple[str, ...] = ()

    @property
    def tensors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Integers and scales."""
        return {key: (one.integers, one.scale) for key, one in self.weights.items()}


def _choose_grid(options: ExportOptions, checkpoint: Checkpoint, target: Target | None) -> _Grid:
    """That of the file that `prune --bits` wrote beside it, or each weight rounded to `--bits`.

    Raises:
        InputError: the format needs integers and there are none.
    """
    from snnprune.checkpoint.mask_file import BITS

    how = FORMATS[options.to].bits
    stored = checkpoint.metadata.get(BITS)
    if how == "never" or (how == "may" and options.bits is None and stored is None):
        return _Grid()
    if options.bits is not None and str(options.bits) != stored:
        return _round_weights(checkpoint, target, options.bits)
    if stored is None or not stored.isdigit():
        raise InputError("has floats", hint="give --bits, or prune with --bits")
    return _read_grid(options.checkpoint, checkpoint, target, int(stored))


def _round_weights(checkpoint: Checkpoint, target: Target | None, bits: int) -> _Grid:
    """Each weight on a grid by itself."""
    from snnprune.pruning.repair.quantize import quantize_by_rounding

    if target is None:
        tensors = checkpoint.in_file(checkpoint.tensors)
        weights = {key: one for key, one in tensors.items() if is_prunable(key, one)}
    else:
        assert target.network is not None
        own = target.network.module
        weights = {key: own.get_parameter(key).detach() for key in target.network.layers}
    found = quantize_by_rounding(
        weights,
        {key: weight != 0 for key, weight in weights.items()},
        bits,
        reasons=dict.fromkeys(weights, "rounded at export"),
        network=None if target is None else target.network,
    )
    zeros = sum(one.zeros for one in found.layers.values())
    note = (f"{zeros:,} weights that are kept are 0 with {bits} bits",) if zeros else ()
    return _Grid(bits=bits, weights=found.weights, notes=note)


def _read_grid(path: Path, checkpoint: Checkpoint, target: Target | None, bits: int) -> _Grid:
    """The integers that lie beside a file, if they are its own."""
    from snnprune.checkpoint.mask_file import read_integers, read_partner
    from snnprune.pruning.repair.quantize import IntegerWeight

    beside = OutputPaths(out=path, quantized=True).integers_file
    assert beside is not None
    if not beside.is_file():
        raise InputError(
            f"was pruned to {bits} bits, and {beside.name} is not beside it",
            hint="put it there, or give other --bits to round anew",
        )
    if read_partner(beside) != checkpoint.sha256:
        raise InputError(f"holds the integers of another file than {path.name}", file=str(beside))
    found = {
        key: IntegerWeight(integers=a, scale=b) for key, (a, b) in read_integers(beside).items()
    }
    if target is not None:
        names = checkpoint.in_file({key: key for key in checkpoint.tensors})
        found = {names[key]: one for key, one in found.items() if key in names}
    return _Grid(bits=bits, weights=found, own=True)


def _open_network(options: ExportOptions) -> Target | None:
    """The network, where it is needed.

    Raises:
        InputError: there is none; or as `open_target`.
    """
    if not FORMATS[options.to].needs_network:
        return None
    from snnprune.jobs.targets.opening import open_target

    target = open_target(options.target)
    if target.network is None or target.spec is None:
        raise InputError(
            target.missing or "no network",
            file=target.checkpoint.path,
            field=f"--to {options.to}",
            hint="give --data" if target.spec else "give --model",
        )
    return target


def _record_network(target: Target, weights: Mapping[str, IntegerWeight]) -> RecordedNetwork:
    """What it does, with these weights, on a batch of its data or a blank picture."""
    from snnprune.export.exporters import record_first_calls
    from snnprune.jobs.targets.binding import load_tensors
    from snnprune.jobs.targets.opening import read_example

    assert target.network is not None
    assert target.spec is not None
    blank = not (target.data and (target.data.train or target.data.test))
    load_tensors(target.network.module, {key: one.multiply() for key, one in weights.items()})
    example = read_example(target.spec, target.data, target.device, count=SAMPLES)
    assert example is not None, "it was traced with one"
    return replace(record_first_calls(target.network, example.x), blank=blank)


def _count_negative_zeros(weight: Tensor) -> int:
    return int((weight == 0).logical_and(weight.signbit()).sum())


def _note_negative_zeros(count: int) -> tuple[str, ...]:
    """A note where products with a mask have left -0.0, which an exact copy holds as a value."""
    if not count:
        return ()
    told = f"{count:,} weights are -0.0, stored as values; --values float32 stores them as 0"
    return (Note(told),)


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
    if options.bits is not None and FORMATS[options.to].bits == "never":
        raise UsageError(
            f"a {options.to} file holds no integers of so many bits",
            field="--bits",
            hint="leave it out, or choose --to integers or c",
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
                hint="leave it out, or choose --to nir, onnx, c or lava",
            )
