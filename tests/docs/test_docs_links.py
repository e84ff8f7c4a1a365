"""Links between the pages lead somewhere."""

import re
from pathlib import Path

import pytest
from doc_blocks import DOCS

PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
LINK = re.compile(r"\]\((?!http)([^)#]*)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: str) -> None:
    for target, anchor in LINK.findall((DOCS / page).read_text(encoding="utf-8")):
        file = (DOCS / page).parent / target if target else DOCS / page
        assert file.is_file(), f"{page}: {target}"
        assert not anchor or anchor in anchors_of(file), f"{page}: {target}#{anchor}"


def anchors_of(file: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
