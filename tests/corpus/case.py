"""What a case is: some files, the kind of reader that they are for, and what is to come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from corpus.bench import Bench

Files = Mapping[str, bytes]
"""By their path in the folder of the case."""
Make = Callable[[Bench], Files]

READ, REFUSED = 0, 3

CASES: list[Case] = []


@dataclass(frozen=True, kw_only=True)
class Case:
    """Files, and what comes of the commands that read them."""

    kind: str
    """A key of `kinds.KINDS`."""
    name: str
    make: Make
    codes: tuple[int, ...]
    """The exit codes that the strict command of the kind may end with."""

    @property
    def good(self) -> bool:
        """Whether it is to be read."""
        return self.codes == (READ,)

    def lay(self, folder: Path, bench: Bench) -> None:
        """Write the files into a folder."""
        lay(self.make(bench), folder)


def lay(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def good(*kinds: str) -> Callable[[Make], Make]:
    """Add a case of each kind that is to be read, named after the function."""
    return _adding(kinds, (READ,))


def bad(*kinds: str, codes: Iterable[int] = (REFUSED,)) -> Callable[[Make], Make]:
    """Add a case of each kind that is to be refused, named after the function."""
    return _adding(kinds, tuple(codes))


def add(kind: str, name: str, make: Make, *, codes: Iterable[int] = (REFUSED,)) -> None:
    """Add a case; a name is given once."""
    assert not any((case.kind, case.name) == (kind, name) for case in CASES), (kind, name)
    CASES.append(Case(kind=kind, name=name, make=make, codes=tuple(codes)))


def _adding(kinds: Iterable[str], codes: tuple[int, ...]) -> Callable[[Make], Make]:
    def add_all(make: Make) -> Make:
        for kind in kinds:
            add(kind, make.__name__.strip("_").replace("_", " "), make, codes=codes)
        return make

    return add_all
