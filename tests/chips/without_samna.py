"""Vendors' packages without their driver: samna is a program that is fetched when it is imported.

What is compared here is Python of the packages themselves, whose modules import `samna` and
`samnagui` for their type hints and to talk to a chip. In their place stand modules of classes of
which any call is an error.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

DRIVERS = ("samna", "samnagui")


class _Part(type):
    """A class in the place of anything that a driver has; good for type hints alone."""

    def __getattr__(cls, name: str) -> _Part:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Part(name, (), {})

    def __call__(cls, *_: object, **__: object) -> None:
        raise AssertionError(f"{cls.__name__} of a driver was called")


class _Driver(ModuleType):
    def __getattr__(self, name: str) -> _Part:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Part(name, (), {})


class _Drivers(MetaPathFinder, Loader):
    """Finds a stand-in for every module of the drivers."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in DRIVERS else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        made = _Driver(spec.name)
        made.__path__ = []
        return made

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


@contextlib.contextmanager
def without_drivers(*packages: str) -> Iterator[None]:
    """The block may import `packages`, which ask for a driver; afterwards none is imported."""
    drivers = _Drivers()
    sys.meta_path.insert(0, drivers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # third-party imports
            yield
    finally:
        sys.meta_path.remove(drivers)
        held = (*DRIVERS, *packages)
        for name in [name for name in sys.modules if _is_of(name, held)]:
            del sys.modules[name]


def _is_of(name: str, packages: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in packages)
