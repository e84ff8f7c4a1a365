"""docs/criteria.md has every criterion, allocation and repair of the tool."""

import re

from doc_blocks import first_column, read

from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.repair import NONE, REPAIRS

PAGE = "criteria.md"


def test_the_table_of_allocations_is_the_tool_s() -> None:
    assert first_column(PAGE, "Allocations") == set(ALLOCATIONS.rows)


def test_the_table_of_repairs_is_the_tool_s() -> None:
    assert first_column(PAGE, "Repairs") == {NONE, *REPAIRS.rows}


def test_every_criterion_has_a_heading_or_a_row() -> None:
    headings = "".join(re.findall(r"^#+ .*$", read(PAGE), re.MULTILINE))
    rows = "".join(re.findall(r"^\| `[\w-]+` \|", read(PAGE), re.MULTILINE))
    assert set(CRITERIA.rows) - set(re.findall(r"`([\w-]+)`", headings + rows)) == set()
