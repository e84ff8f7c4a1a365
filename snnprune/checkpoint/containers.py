"""Checkpoints of any container: read, held against a hash that its user knows, and written again.

The container of a file is told by its first bytes; to what it can be written, by the name of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.header import HEADER_LIMIT, hash_shards, is_index, list_shards
from snnprune.checkpoint.naming import strip_prefixes
from snnprune.errors import InputError, UsageError
from snnprune.files.reading import (
    COPY_AGAIN,
    hash_file,
    open_for_reading,
    read_sums,
    require_readable,
    require_regular_file,
    require_unchanging,
)
from snnprune.files.writing import replace_file
from snnprune.runtime import KEY, __version__

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.checkpoint.checkpoint import Checkpoint, Contents

SHARDED = "sharded-safetensors"
MODULE = "module"
"""In place of a container: the tensors of a network that is in memory."""
HEAD = 512
"""Bytes looked at: enough for a tar archive's magic, which lies at 257."""


@dataclass(frozen=True, kw_only=True)
class ForeignFormat:
    """A kind of file that people hand over by mistake."""

    start: bytes
    """A pattern that its first bytes match."""
    message: str
    hint: str


CONVERT = "load it where it was made and save the state_dict with torch.save"

JSON = rb'(\xef\xbb\xbf)?\s*[{\[]\s*["{}\[\]\dtfn-]'

HDF5 = b"\x89HDF\r\n\x1a\n"

FOREIGN = (
    ForeignFormat(
        start=rb"version https://git-lfs",
        message="is a Git LFS pointer, not the file itself",
        hint="git lfs pull fetches the file",
    ),
    ForeignFormat(
        start=rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]",
        message="is an HTML page",
        hint="the download failed or asked for a login: download it again",
    ),
    ForeignFormat(
        start=JSON,
        message="is JSON text",
        hint="name the file that holds the tensors, or read in it why the download failed",
    ),
    ForeignFormat(start=rb"\x1f\x8b", message="is a gzip archive", hint="gunzip it first"),
    ForeignFormat(
        start=rb"\x93NUMPY", message="is a NumPy file, which is not supported", hint=CONVERT
    ),
    ForeignFormat(start=rb"GGUF", message="is a GGUF file, which is not supported", hint=CONVERT),
    ForeignFormat(
        # The fields of a ModelProto: ir_version, then producer, domain, doc, graph or opset.
        start=rb"\x08[\x01-\x1f][\x12\x1a\x22\x32\x3a\x42]",
        message="is an ONNX file, which is not supported",
        hint=CONVERT,
    ),
    ForeignFormat(
        start=rb"(?s).{257}ustar",
        message="is a tar archive",
        hint="unpack it and name the checkpoint in it",
    ),
)

# A zip archive, a binary pickle, or a text pickle that begins by calling a global.
TORCH_HEAD = rb"PK\x03\x04|PK\x05\x06|\x80[\x00-\x05]|c\w[\w.]*\n\w[\w.]*\n(p\d+\n|q[\s\S])?\("


def sniff_container(path: Path) -> str:
    """`safetensors`, `sharded-safetensors`, `torch` or `nir`.

    Raises:
        InputError: the file is not there, cannot be read, or is something else.
    """
    require_regular_file(path)
    with open_for_reading(path) as file:
        head = file.read(HEAD)
        if head[257:262] == b"ustar" and _load_module("torch.formats").is_torch(file):
            return "torch"
    # Before all else, since a header's length may spell the first bytes of anything.
    if head[5:9] == b"\0\0\0{":
        return "safetensors"
    if re.match(JSON, head) and is_index(path):
        return "sharded-safetensors"
    if head.startswith(HDF5):
        return "nir"
    _refuse_foreign(path, head)
    if re.match(TORCH_HEAD, head):
        return "torch"
    if _may_be_safetensors(head) or path.suffix == ".safetensors":
        return "safetensors"
    raise InputError(
        "is neither a safetensors nor a torch file nor a NIR graph",
        file=path,
        hint=f"snnprune reads .safetensors, .pt, .pth, .tar, .ckpt and .nir; else {COPY_AGAIN}",
    )


def _refuse_foreign(path: Path, head: bytes) -> None:
    for foreign in FOREIGN:
        if re.match(foreign.start, head):
            raise InputError(foreign.message, file=path, hint=foreign.hint)


def _may_be_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" or (len(head) >= 8 and 2 <= length <= HEADER_LIMIT)


READERS = {
    "safetensors": ("packed", "read", "read_outline"),
    "sharded-safetensors": ("safetensors", "read_shards", "read_shard_outlines"),
    "torch": ("torch", "read", "read_outline"),
    "nir": ("nir", "read", "read_outline"),
}
"""The module of each container, and what reads all of a file, or its outline."""


def _load_module(name: str) -> Any:
    """One of this package, which imports torch: what looks at first bytes alone does without."""
    return import_module(f"snnprune.checkpoint.{name}")


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a file says of one tensor."""

    name: str
    dtype: str
    """As torch spells it: `float32`."""
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is in a file, without its values."""

    path: Path
    container: str
    size_bytes: int
    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def read_checkpoint(
    path: Path, *, allow_nonfinite: bool = False, entry: str | None = None
) -> Checkpoint:
    """Read a checkpoint, never running code that is in it.

    Of a torch file with several state dicts, `entry` names one by the keys that lead to it:
    `model_ema`, `model.state_dict`, `.` for the top.

    Raises:
        InputError: the file is not there, not a checkpoint, damaged, holds code or lies about
            its tensors, has no such entry, or holds values that no network can have (see
            `require_sound`).
    """
    from snnprune.checkpoint.checkpoint import Checkpoint, require_sound

    container = sniff_container(path)
    with require_unchanging(*_files_of(path, container)):  # the hash is to be that of what was read
        contents = _read(container, path, entry)
        sha256 = hash_checkpoint(path, container)
    tensors, stripped, notes = strip_prefixes(contents.tensors)
    odd = require_sound(tensors, path, allow_nonfinite=allow_nonfinite)
    return Checkpoint(
        path=path,
        container="packed" if contents.packed else container,
        tensors=tensors,
        metadata=contents.metadata,
        sha256=sha256,
        notes=(*contents.notes, *notes, *odd, *note_future_version(contents.metadata)),
        names={key: contents.names.get(name, name) for key, name in stripped.items()},
        entry=contents.entry,
        odd=contents.odd,
    )


def describe_checkpoint(path: Path, *, entry: str | None = None) -> Description:
    """What `read_checkpoint` would find, whatever the values; of safetensors the header only.

    Raises:
        InputError: the file is not there, not a checkpoint, damaged, holds code, or has no such
            entry.
    """
    container = sniff_container(path)
    files = _files_of(path, container)
    with require_unchanging(*files):
        contents = _read(container, path, entry, outline=True)
        size = sum(file.stat().st_size for file in files)
    tensors, _, notes = strip_prefixes(contents.tensors)
    return Description(
        path=path,
        container="packed" if contents.packed else container,
        size_bytes=size,
        tensors=tuple(_make_info(name, tensor) for name, tensor in tensors.items()),
        metadata=contents.metadata,
        notes=(*contents.notes, *notes, *note_future_version(contents.metadata)),
    )


def files_of(path: Path) -> list[Path]:
    """The files that a checkpoint is: the one that is named and, where it is an index, its shards.

    Raises:
        InputError: the file is not there or no checkpoint, or the index names other places.
    """
    return _files_of(path, sniff_container(path))


def hash_checkpoint(path: Path, container: str) -> str:
    """The SHA-256 of the file; of an index and its shards together."""
    return hash_shards(path) if container == SHARDED else hash_file(path)


def _files_of(path: Path, container: str) -> list[Path]:
    return list_shards(path) if container == SHARDED else [path]


def _read(container: str, path: Path, entry: str | None, *, outline: bool = False) -> Contents:
    module, whole, header = READERS[container]
    if entry is not None and container != "torch":
        raise InputError(
            "only torch files hold several state dicts",
            file=path,
            field="--state-dict",
            hint="leave it out",
        )
    named = {} if entry is None else {"entry": entry}
    look = outline and entry is None
    found: Contents = getattr(_load_module(module), header if look else whole)(path, **named)
    return found


def note_future_version(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """A note on a file that says that a later snnprune wrote it."""
    text = metadata.get(KEY, "")
    said, ours = _parse_version(text), _parse_version(__version__)
    if said is None or ours is None or said <= ours:
        return ()
    return (f"says that snnprune {text} wrote it, this is {__version__}: update if it looks odd",)


def _parse_version(version: str) -> tuple[int, ...] | None:
    """The numbers of a version as 0.1.0; None where it does not begin so."""
    found = re.match(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", version)
    return None if found is None else tuple(int(number or 0) for number in found.groups())


def _make_info(name: str, tensor: Tensor) -> TensorInfo:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(tensor.shape))


HASH_FLAG = "--sha256"
HASH = re.compile("[0-9a-fA-F]{64}")


def require_sha256(path: Path, given: str) -> None:
    """Refuse a file that is not as `given`: its SHA-256, or the file of a list that has it.

    Nothing is made of what is in the file before; of an index, its shards are looked at too.

    Raises:
        InputError: it is another file or a damaged one, or the list cannot be read or lacks it.
    """
    require_readable(path)
    if HASH.fullmatch(given):
        _require_same(path, hash_checkpoint(path, sniff_container(path)), {given.lower()})
        return
    listed = read_sums(Path(given))
    _require_listed(path, listed, given)  # before it is asked which other files it names
    for shard in files_of(path)[1:]:
        _require_listed(shard, listed, given)


def _require_listed(path: Path, listed: Mapping[Path, set[str]], given: str) -> None:
    if (known := listed.get(path.resolve())) is None:
        raise InputError(
            f"is not listed in {given}", file=path, field=HASH_FLAG, hint="name its list"
        )
    _require_same(path, hash_file(path), known)


def _require_same(path: Path, found: str, known: set[str]) -> None:
    if known != {found}:
        raise InputError(
            f"damaged or another file: its SHA-256 is {found}, not {', '.join(sorted(known))}",
            file=path,
            field=HASH_FLAG,
            hint=COPY_AGAIN,
        )


SAFETENSORS = (".safetensors",)
TORCH = (".pt", ".pth", ".tar", ".ckpt", ".bin")
NIR = (".nir",)

WRITABLE: dict[str, tuple[str, ...]] = {
    "safetensors": SAFETENSORS,
    "sharded-safetensors": SAFETENSORS,
    "torch": (*TORCH, *SAFETENSORS),
    "nir": NIR,
    MODULE: (*TORCH, *SAFETENSORS),
}
"""The extensions that a file of each container can be written to."""

KNOWN = (*SAFETENSORS, *TORCH, *NIR)


def require_writable_as(source: Path, out: Path) -> None:
    """Refuse, before any work is done, an extension that `source` cannot be written to.

    Raises:
        UsageError: it is such an extension.
        InputError: `source` is no checkpoint.
    """
    if out.suffix.lower() not in KNOWN:
        raise UsageError(
            f"{out.name} does not end in {', '.join(KNOWN[:-1])} or {KNOWN[-1]}", field="-o"
        )
    container = sniff_container(source)
    _require_extension(out, container, f"{source.name} is a {container} file, which")


def require_module_writable_as(out: Path) -> None:
    """Refuse an extension that a network which is in memory cannot be written to.

    Raises:
        UsageError: it is such an extension.
    """
    _require_extension(out, MODULE, "a network")


def _require_extension(out: Path, container: str, what: str) -> None:
    fitting = WRITABLE[container]
    if out.suffix.lower() not in fitting:
        raise UsageError(
            f"{out.name}: {what} can be written as {', '.join(fitting)}",
            field="-o",
        )


def write_like(
    source: Checkpoint, out: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[str, ...]:
    """Write `tensors`, by the keys of `source`, as a drop-in for its file; notes on the rest.

    `.safetensors` holds the tensors and `metadata`. A torch file or NIR graph is what the file
    of `source` was, with these values; metadata has no place in it.

    Raises:
        InputError: the file of `source` changed since it was read, or cannot be written again; or
            `out` cannot hold all of its tensors.
        OutputError: `out` cannot be written.
    """
    values = source.in_file(tensors)
    if out.suffix.lower() in SAFETENSORS:
        require_plain(source)
        _load_module("safetensors").write_safetensors(out, values, metadata)
        return ()
    if source.container == MODULE:
        _load_module("torch.rewrite").write_state_dict(out, values)
        return ()
    # a change after its hash was taken is one too, and is known before `out` takes its place
    with replace_file(out) as temporary, require_unchanging(source.path):
        if hash_checkpoint(source.path, source.container) != source.sha256:
            raise InputError("changed since it was read", file=source.path, hint="start again")
        if source.container == "nir":
            _load_module("nir").rewrite(source.path, temporary, values)
            return ()
        notes: tuple[str, ...] = _load_module("torch.rewrite").rewrite(source, temporary, values)
        return notes


def require_plain(source: Checkpoint) -> None:
    """Refuse to write all tensors of `source` to a file that can hold plain ones alone.

    Raises:
        InputError: one is of another kind, as a quantised one.
    """
    if not source.odd:
        return
    name, kind = next(iter(source.odd.items()))
    more = f" and {len(source.odd) - 1} more" if len(source.odd) > 1 else ""
    raise InputError(
        f"a tensor that is {kind}{more} has no place in a file of plain tensors",
        file=source.path,
        field=name,
        hint="write a .pth file",
    )


def read_back(source: Checkpoint, out: Path) -> dict[str, Tensor]:
    """The tensors of a file that `write_like` wrote, by the keys of `source`.

    Raises:
        InputError: it is not what was written.
    """
    from snnprune.checkpoint.checkpoint import fold_masks

    entry = source.entry if sniff_container(out) == "torch" else None
    written = read_checkpoint(out, allow_nonfinite=True, entry=entry)
    if source.folded and written.container == "torch":
        written = fold_masks(written)
    stored = written.in_file(written.tensors)
    keys = {name: key for key, name in source.names.items()}
    return {keys.get(name, name): tensor for name, tensor in stored.items()}
