"""Writing a checkpoint again with other values: the container follows from the name."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from snnprune.checkpoint import nir
from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.read import hash_checkpoint, read_checkpoint, sniff_container
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.checkpoint.torch import rewrite
from snnprune.checkpoint.weights import fold_masks
from snnprune.errors import InputError, UsageError
from snnprune.files.readable import require_unchanging
from snnprune.files.together import replace_file

SAFETENSORS = (".safetensors",)
TORCH = (".pt", ".pth", ".tar", ".ckpt", ".bin")
NIR = (".nir",)

WRITABLE: dict[str, tuple[str, ...]] = {
    "safetensors": SAFETENSORS,
    "sharded-safetensors": SAFETENSORS,
    "torch": (*TORCH, *SAFETENSORS),
    "nir": NIR,
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
    fitting = WRITABLE[container]
    if out.suffix.lower() not in fitting:
        raise UsageError(
            f"{out.name}: {source.name} is a {container} file, which can be written as "
            + ", ".join(fitting),
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
        write_safetensors(out, values, metadata)
        return ()
    # a change after its hash was taken is one too, and is known before `out` takes its place
    with replace_file(out) as temporary, require_unchanging(source.path):
        if hash_checkpoint(source.path, source.container) != source.sha256:
            raise InputError("changed since it was read", file=source.path, hint="start again")
        if source.container == "nir":
            nir.rewrite(source.path, temporary, values)
            return ()
        return rewrite.rewrite(source, temporary, values)


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
    entry = source.entry if sniff_container(out) == "torch" else None
    written = read_checkpoint(out, allow_nonfinite=True, entry=entry)
    if source.folded and written.container == "torch":
        written = fold_masks(written)
    stored = written.in_file(written.tensors)
    keys = {name: key for key, name in source.names.items()}
    return {keys.get(name, name): tensor for name, tensor in stored.items()}
