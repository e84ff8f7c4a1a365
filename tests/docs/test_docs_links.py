"""Links between the pages lead somewhere."""

import re

import pytest
from doc_blocks import DOCS, read

PAGES = ("cli.md", "usage.md", "files.md", "extending.md")
LINK = re.compile(r"\]\(([\w-]+\.md)?(?:#([\w-]+))?\)")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_with_an_anchor_leads_to_a_heading(page: str) -> None:
    for target, anchor in LINK.findall(read(page)):
        if anchor:
            assert anchor in anchors_of(target or page), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_page_exists(page: str) -> None:
    linked = {target for target, _ in LINK.findall(read(page)) if target}
    assert {target for target in linked if not (DOCS / target).is_file()} == set()


def anchors_of(page: str) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
