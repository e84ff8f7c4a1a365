"""The picture of what is lost by layer and sparsity."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from snnprune.report.plots.layers import plot_sensitivity


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, which are not drawn then."""
    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    return seen


def test_each_measure_is_a_panel_with_its_numbers(figures: list[Figure], tmp_path: Path) -> None:
    measures: dict[str, dict[str, list[float | None]]] = {
        "accuracy lost": {"a": [0.0, 41.26], "b": [-0.5, 3.0]},
        "spikes": {"a": [1.0, 2.0], "b": [None, None]},
        "unknown": {"a": [None, None], "b": [None, None]},
    }
    plot_sensitivity([tmp_path / "p.png"], [0.5, 0.98], measures, "conditions")
    first, second, *_ = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["accuracy lost", "spikes"]
    assert [text.get_text() for text in first.texts] == ["0.0", "41", "-0.5", "3.0"]
    assert [text.get_text() for text in second.texts] == ["1.0", "2.0"]
    assert [label.get_text() for label in first.get_xticklabels()] == ["50", "98"]
    assert "unknown" not in {axes.get_title(loc="left") for axes in figures[0].axes}


def test_a_zero_can_be_read_on_its_dark_square(figures: list[Figure], tmp_path: Path) -> None:
    plot_sensitivity([tmp_path / "p.png"], [0.5, 0.9], {"lost": {"a": [0.0, 9.0]}}, "")
    assert [text.get_color() for text in figures[0].axes[0].texts] == ["white", "black"]
