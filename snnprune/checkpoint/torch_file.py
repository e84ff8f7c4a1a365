"""Torch files, of the zip and of the older format, without running what is pickled in them."""

import argparse
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.serialization import safe_globals

from snnprune.checkpoint.contents import Contents
from snnprune.checkpoint.pickle_scan import foreign_global
from snnprune.checkpoint.regular import COPY_AGAIN, reading
from snnprune.checkpoint.state_dict import state_dict_in
from snnprune.checkpoint.zip_archive import SAVE_STATE_DICT, pickle_in, require_torch_archive
from snnprune.errors import InputError


class Ignored:
    """Stands for a NumPy scalar, such as a best accuracy beside the weights.

    NumPy's own functions trust the bytes that they are given; nothing reads the value.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


SCANNED = 64 * 2**20
"""Bytes of an old-format file searched for the name of its code; the pickles come first."""

HARMLESS: list[Any] = [
    argparse.Namespace,
    (Ignored, "numpy.dtype"),
    (Ignored, "numpy.core.multiarray.scalar"),
    (Ignored, "numpy._core.multiarray.scalar"),
]


def read(path: Path) -> Contents:
    """The state_dict in the file, on the CPU.

    Raises:
        InputError: the file is damaged, holds code or no state_dict, or lies about a tensor.
    """
    with reading(path) as file:
        is_zip = file.read(2) == b"PK"
        if is_zip:
            require_torch_archive(file, path)
        loaded = _load(file, path, is_zip=is_zip)
    tensors, notes = state_dict_in(loaded, path)
    for name, tensor in tensors.items():
        _require_honest(name, tensor, path)
    plain = {name: tensor.detach() for name, tensor in tensors.items()}
    return Contents(tensors=plain, metadata={}, notes=notes)


def _load(file: BinaryIO, path: Path, *, is_zip: bool) -> object:
    file.seek(0)
    with warnings.catch_warnings(), safe_globals(HARMLESS):
        warnings.simplefilter("ignore")  # torch warns of old formats, which the user cannot mend
        try:
            # Not mapped: only when it copies does torch hold a tensor's claimed size against the
            # archive; a mapped tensor could run on into whatever lies behind it.
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
        except OSError:
            raise
        except Exception as error:  # hostile bytes can make an unpickler fail in any way
            raise _refusal(error, file, path, is_zip=is_zip) from error


def _refusal(error: Exception, file: BinaryIO, path: Path, *, is_zip: bool) -> InputError:
    code = _code_named_by(error) or _code_in(file, is_zip=is_zip)
    if code:
        return InputError(
            "holds code, which snnprune never runs", file=path, field=code, hint=SAVE_STATE_DICT
        )
    if isinstance(error, pickle.UnpicklingError):  # its text advises weights_only=False
        return InputError(
            "is a pickle that torch.save did not write, or damaged",
            file=path,
            hint=SAVE_STATE_DICT,
        )
    reason = str(error).split("\n")[0].split(". ")[0] or "it ends in the middle"  # EOFError
    return InputError(f"truncated or damaged: {reason}", file=path, hint=COPY_AGAIN)


def _code_named_by(error: Exception) -> str | None:
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else None


def _code_in(file: BinaryIO, *, is_zip: bool) -> str | None:
    file.seek(0)
    return foreign_global(pickle_in(file) if is_zip else file.read(SCANNED))


def _require_honest(name: str, tensor: Tensor, path: Path) -> None:
    if not _is_text(name):
        raise InputError("its name is not text", file=path, field=name, hint="rename the tensor")
    if not _is_plain(tensor):
        raise InputError(
            f"is not a plain dense tensor ({tensor.layout}, {tensor.dtype}, {tensor.device})",
            file=path,
            field=name,
            hint="save it dense and on the CPU",
        )
    stored = tensor.untyped_storage().nbytes()
    if tensor.nbytes > stored:
        raise InputError(
            f"claims {tensor.nbytes:,} bytes, {stored:,} are stored",
            file=path,
            field=name,
            hint="save a contiguous() copy of an expanded tensor",
        )


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
    )


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which a pickle can hold
        return False
    return True
