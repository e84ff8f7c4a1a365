"""What the calls in a torch file stand for: tensors, dicts, and stand-ins that call nothing."""

from __future__ import annotations

from snnprune.checkpoint.torch.machine import (
    MalformedPickleError,
    Meaning,
    PickledCall,
    PickledDict,
    PickledGlobal,
)
from snnprune.checkpoint.torch.stored_tensors import (
    STORAGES,
    Storage,
    StoredTensor,
    View,
    rebuild_tensor,
)

MAPPINGS = ("collections.OrderedDict", "builtins.dict")
"""Dicts that are made empty by a call and filled afterwards."""

ATTACKS = {
    *("os", "posix", "nt", "sys", "subprocess", "runpy", "importlib", "pty", "socket", "shutil"),
    *("ctypes", "webbrowser", "commands", "timeit", "code", "marshal", "pdb", "bdb"),
}
RUNNING = {"eval", "exec", "compile", "open", "__import__", "breakpoint", "input", "execfile"}
"""Modules, and functions of `builtins`, that only a file made to do harm calls."""


class CodeError(Exception):
    """The file calls what no trainer saves; its text is the name of that."""


class PickledTensors:
    """The tensors and storages that a file's pickles speak of."""

    def __init__(self) -> None:
        self.storages: dict[object, Storage] = {}
        self.all: list[StoredTensor] = []
        """Every tensor, wherever it lies."""
        self.others: dict[object, StoredTensor | View] = {}
        """What a bare number or text leads to, as in tar files."""
        self.names: dict[str, None] = {}
        """Of every class and function that was called, in their order."""
        self._harmless: set[PickledGlobal] = set()

    def meaning(self) -> Meaning:
        """What calls and persistent ids stand for."""
        return Meaning(called=self.called, persistent=self.persistent)

    def called(self, function: PickledGlobal, arguments: object, place: int) -> object:
        """What a call stands for.

        Raises:
            CodeError: it would run a program.
        """
        if function not in self._harmless:
            _require_harmless(function)
            self.names[function.full] = None
            self._harmless.add(function)
        name = function.full
        if (found := rebuild_tensor(name, arguments, place)) is not None:
            self.all.append(found)
            return found
        if name in MAPPINGS and arguments == ():
            return PickledDict(place)
        if name == "torch.Size" and _is_sizes(arguments):
            return tuple(arguments[0])  # type: ignore[index]  # as was seen
        return PickledCall(function, arguments, place)

    def persistent(self, identity: object) -> object:
        """The storage that an id leads to, the class of a module, or a tensor of a tar file."""
        if type(identity) in (int, str):
            return self._make_numbered(identity)
        if not isinstance(identity, tuple) or len(identity) < 2:
            raise MalformedPickleError("refers to what is no storage")
        if identity[0] == "module":  # with the source of its class
            return identity[1]
        if identity[0] == "storage" and len(identity) in (5, 6):
            return self._make_view(*identity[1:])
        if isinstance(identity[0], PickledGlobal):  # a module of a tar file
            return identity[0]
        raise MalformedPickleError("refers to what is no storage")

    def _make_numbered(self, identity: object) -> object:
        if isinstance(identity, str) and identity.isascii() and identity.isdigit():
            identity = int(identity[:20])
        if identity not in self.others:
            raise MalformedPickleError("refers to what is no storage")
        return self.others[identity]

    def _make_view(
        self, kind: object, key: object, location: object, count: object, part: object = None
    ) -> View:
        if type(key) not in (str, int) or not _is_count(count):
            raise MalformedPickleError("refers to a storage without a key or a size")
        storage = self.storage(kind, key, location, count)  # type: ignore[arg-type]  # as above
        if part is None:
            return View(storage, 0, storage.count)
        return _parse_view(storage, part)

    def storage(self, kind: object, key: object, location: object, count: int) -> Storage:
        """The storage under `key`; one that is described in two ways is in doubt.

        Raises:
            MalformedPickleError: its class is none of a storage.
        """
        name = (
            kind.name if isinstance(kind, PickledGlobal) and kind.module.startswith("torch") else ""
        )
        if name not in STORAGES:
            raise MalformedPickleError("refers to what is no storage")
        new = Storage(key, name, location, count)
        known = self.storages.setdefault(key, new)
        if (known.kind, known.count) != (name, count):
            known.doubt = "is described in two ways"
        return known


def _require_harmless(function: PickledGlobal) -> None:
    runs = function.module == "builtins" and function.name in RUNNING
    if runs or function.module.partition(".")[0] in ATTACKS:
        raise CodeError(function.full)


def _parse_view(storage: Storage, part: object) -> View:
    """`(key, offset, size)` of a view, which torch wrote before 0.2."""
    if not isinstance(part, tuple) or len(part) != 3 or not all(map(_is_count, part[1:])):
        raise MalformedPickleError("refers to a part of a storage without its size")
    _, offset, count = part
    if offset + count > storage.count:
        raise MalformedPickleError("refers to a part outside its storage")
    return View(storage, offset, count)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**59


def _is_sizes(arguments: object) -> bool:
    return (
        isinstance(arguments, tuple)
        and len(arguments) == 1
        and isinstance(arguments[0], tuple | list)
    )
