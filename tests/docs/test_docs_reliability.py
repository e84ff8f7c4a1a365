"""docs/reliability.md names tests that are there, and leaves out no fault of its table."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(\S+\.py)::(\w+)`", PAGE)
    missing = {
        f"{file}::{test}"
        for file, test in named
        if f"def {test}(" not in (TESTS / file).read_text()
    }
    assert len(named) > 100
    assert missing == set()


def test_every_fault_is_numbered_once_and_provoked_or_has_its_reason() -> None:
    rows = re.findall(r"^\| (\d+) \|(.+)\|(.+)\|(.+)\|$", PAGE, flags=re.MULTILINE)
    assert sorted(int(number) for number, *_ in rows) == list(range(1, 85))
    assert [
        number for number, *_, proof in rows if "::" not in proof and "cannot" not in proof
    ] == []
