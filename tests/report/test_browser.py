"""The page of a report in a real browser: both themes, a phone's width, hostile names."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from browser import CHROMIUM, opened
from safetensors.torch import save_file

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.slow,
]
HOSTILE = (
    "<script>document.title='taken'</script>.weight",
    "<img src=x onerror=alert(1)>\x1b[31m.weight",
    "</style><style>body{display:none}</style>.weight",
    "{{ 7 * 7 }}$\\frac{1}{2}$.weight",
    "a\u202eb.weight",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, process: Callable[..., object]) -> Path:
    """Of a checkpoint with hostile names, pruned to two sparsities, one of them gated."""
    folder = tmp_path_factory.mktemp("hostile")
    torch.manual_seed(0)
    save_file({name: torch.randn(8, 8) for name in HOSTILE}, folder / "x.safetensors")
    flags = ("--sparsity", 0.5, "-o", folder / "p.safetensors", "--report", folder / "report")
    process("prune", folder / "x.safetensors", *flags, "--min-sparsity", 0.4)
    return folder / "report" / "report.html"


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, True)])
def test_it_loads_without_a_word_and_asks_for_nothing(page: Path, width: int, dark: bool) -> None:
    found = opened(page, width=width, dark=dark)
    assert found.console == []
    assert found.requests == []
    assert "<title>snnprune prune: x.safetensors</title>" in found.dom


def test_what_a_page_says_and_asks_for_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://one.invalid/x.png'><script>console.error('hey')</script>")
    found = opened(page)
    assert found.requests == ["http://one.invalid/x.png"]
    assert any("hey" in line for line in found.console)


def test_names_are_text(page: Path) -> None:
    dom = opened(page).dom
    assert "<script" not in dom
    assert "<img" not in dom
    assert len(re.findall("<style", dom)) == 1
    assert "&lt;script&gt;document.title='taken'&lt;/script&gt;" in dom
    assert "{{ 7 * 7 }}" in dom
    assert "\\x1b" in dom
    assert "\u202e" not in dom
