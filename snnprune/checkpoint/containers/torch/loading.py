"""Loading a torch file, of the zip or of the older format, without running what is in it."""

import pickle
import re
import warnings
from pathlib import Path
from typing import BinaryIO

import torch
from torch.serialization import safe_globals

from snnprune.checkpoint.containers.torch.pickle_scan import (
    PickledModule,
    foreign_global,
    pickled_module,
)
from snnprune.checkpoint.containers.torch.stand_ins import HARMLESS
from snnprune.checkpoint.containers.torch.zip_archive import (
    SAVE_STATE_DICT,
    pickle_in,
    require_torch_archive,
)
from snnprune.errors import InputError
from snnprune.readable import COPY_AGAIN, reading

SCANNED = 64 * 2**20
"""Bytes of an old-format file searched for the name of its code; the pickles come first."""


def load(path: Path) -> tuple[object, bool]:
    """What torch.save was given, on the CPU, and whether the file is of the zip format.

    Raises:
        InputError: the file is damaged or holds code.
    """
    with reading(path) as file:
        is_zip = file.read(2) == b"PK"
        if is_zip:
            require_torch_archive(file, path)
        return _load(file, path, is_zip=is_zip), is_zip


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
    data = _pickled(file, is_zip=is_zip)
    module = pickled_module(data, is_zip=is_zip)
    if module:
        return InputError(
            "is a module that was pickled whole: it holds code, which snnprune never runs",
            file=path,
            field=module.name,
            hint=_how_to_save(module, path),
        )
    code = _code_named_by(error) or foreign_global(data)
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


def _pickled(file: BinaryIO, *, is_zip: bool) -> bytes:
    file.seek(0)
    return pickle_in(file) if is_zip else file.read(SCANNED)


def _how_to_save(module: PickledModule, path: Path) -> str:
    """The two statements that save its state dict, for who trusts the file."""
    where = "" if module.key is None else f"[{module.key!r}]"
    out = path.with_name(f"{path.stem}-state.pth")
    return (
        "if you trust the file, where its class can be imported: "
        f"model = torch.load({str(path)!r}, weights_only=False){where}; "
        f"torch.save(model.state_dict(), {str(out)!r})"
    )
