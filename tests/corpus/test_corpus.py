"""Every file of the corpus, by the commands that read it: read, or refused in one line."""

from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
from fuzz.undisturbed import undisturbed
from PIL import Image

from corpus.answers import Run, faults
from corpus.bench import Bench
from corpus.case import Case
from corpus.every_case import BAD, GOOD
from corpus.kinds import KINDS

LATER = ("state of imp", "state of search", "state of finetune", "torch of attackers")
"""Kinds of hundreds of files whose like are met in another kind, or in another test."""


def _of(cases: list[Case]) -> list[object]:
    return [
        pytest.param(
            case,
            id=f"{case.kind}: {case.name}",
            marks=[pytest.mark.slow] if case.kind in LATER else [],
        )
        for case in cases
    ]


for module in ("checkpoint.nir", "checkpoint.packed", "checkpoint.torch.rewrite", "data.public"):
    import_module(f"snnprune.{module}")  # else a bad file is the first to need it
Image.init()  # it imports its formats late, for a picture that it does not know


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with undisturbed():
        yield Bench(tmp_path_factory.mktemp("corpus") / "bench")


@pytest.fixture(scope="module")
def read_before(bench: Bench, run: Run) -> Callable[[str], None]:
    """Reads a good file of a kind, so that what is imported late is there when others are."""
    known: set[str] = set()

    def read(kind: str) -> None:
        if kind in known:
            return
        known.add(kind)
        for case in GOOD:
            if case.kind == kind:
                faults(case, bench, run)
                break

    return read


@pytest.mark.many(2)
@pytest.mark.parametrize("case", _of(GOOD))
def test_a_good_file_is_read_and_nothing_else_is_done(
    case: Case, bench: Bench, run: Run, read_before: Callable[[str], None]
) -> None:
    read_before(case.kind)
    assert faults(case, bench, run) == []


@pytest.mark.many(2)
@pytest.mark.parametrize("case", _of(BAD))
def test_a_bad_file_is_refused_in_one_line_and_nothing_is_done(
    case: Case, bench: Bench, run: Run, read_before: Callable[[str], None]
) -> None:
    read_before(case.kind)
    assert faults(case, bench, run) == []


def test_every_kind_has_good_files_and_bad_ones() -> None:
    kinds = Counter(case.kind for case in GOOD), Counter(case.kind for case in BAD)
    only_good, only_bad = {"lock"}, {"cifar"}  # a lock says nothing; the others' sums are known
    assert set(kinds[0]) == set(KINDS) - only_bad
    assert set(kinds[1]) == set(KINDS) - only_good
