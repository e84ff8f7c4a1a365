"""Pictures: the same numbers give the same bytes, and every name may be in them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from snnprune.report.curves import CurveSummary, summarize_runs
from snnprune.report.plots.accuracy import Tile, plot_grid, plot_search, plot_tickets
from snnprune.report.plots.canvas import choose_line_styles, choose_ticks, compute_position
from snnprune.report.plots.layers import plot_densities, plot_firing_rates, shorten_names

Plot = Callable[[list[Path], CurveSummary, str], None]
PLOTS: tuple[Plot, ...] = (
    plot_tickets,
    plot_densities,
    plot_firing_rates,
    lambda paths, summary, conditions: plot_search(paths, summary, conditions, 10),
)


def ticket(method: str, sparsity: float, accuracy: float, names: list[str]) -> dict[str, Any]:
    kept = round(100 * (1 - sparsity))
    return {
        "kind": "ticket",
        "method": method,
        "sparsity_asked": sparsity,
        "pruned": 100 - kept,
        "prunable": 100,
        "validation_accuracy": None,
        "test": {
            "correct": round(1000 * accuracy),
            "labelled": 1000,
            "firing_rates": dict.fromkeys(names, 0.1),
        },
        "layers": [{"weight": name, "kept": kept, "weights": 100} for name in names],
    }


def summary(*methods: str, seeds: int = 2, names: tuple[str, ...] = ("a", "b")) -> CurveSummary:
    layers = list(names)
    return summarize_runs(
        [
            [
                ticket("dense", 0.0, 0.9, layers),
                *(
                    ticket(method, sparsity, 0.95 - sparsity / 8 - seed / 100, layers)
                    for method in methods
                    for sparsity in (0.5, 0.9, 0.98)
                ),
            ]
            for seed in range(seeds)
        ]
    )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, which are not drawn then."""
    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    return seen


@pytest.mark.many(1)
@pytest.mark.parametrize("plot", PLOTS[:2])
def test_the_same_numbers_give_the_same_bytes(plot: Plot, tmp_path: Path) -> None:
    paths = [tmp_path / "a.svg", tmp_path / "b.png"]
    again = [tmp_path / "c.svg", tmp_path / "d.png"]
    plot(paths, summary("imp", "random"), "conv-snn, T = 4")
    plot(again, summary("imp", "random"), "conv-snn, T = 4")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert b"<dc:date>" not in paths[0].read_bytes()
    assert paths[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("plot", PLOTS)
def test_any_name_can_be_drawn(plot: Plot, tmp_path: Path) -> None:
    names = ("a$x^$", "\x1b[31m\x00", "漢字", "z" * 500, "_hidden")
    path = tmp_path / "picture.svg"
    plot([path], summary("$im$p", "_x", names=names), "a $title$ \x1b[31m of 漢字")
    text = path.read_text("utf-8")
    assert text.rstrip().endswith("</svg>")
    assert "\x1b" not in text


@pytest.mark.many(2)
@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("found", [summarize_runs([[]]), summary(), summary("imp", seeds=1)])
def test_little_or_nothing_can_be_drawn(plot: Plot, found: CurveSummary, tmp_path: Path) -> None:
    plot([tmp_path / "picture.svg"], found, "conv-snn")
    assert (tmp_path / "picture.svg").stat().st_size > 1000


def test_accuracies_are_in_percent_with_a_bar_of_one_deviation(
    figures: list[Figure], tmp_path: Path
) -> None:
    plot_tickets([tmp_path / "a.svg"], summary("imp", seeds=2), "conv-snn")
    axes = figures[0].axes[0]
    (container,) = axes.containers
    line, _, (bars,) = container
    points = [0.95 - sparsity / 8 - 0.005 for sparsity in (0.5, 0.9, 0.98)]
    assert line.get_ydata() == pytest.approx([100 * round(p, 4) for p in points], abs=0.06)
    low, high = bars.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 0.7071, abs=0.08)  # two values one point apart
    low, high = axes.get_ylim()
    assert 80 < low < 82 < 90 < high < 92


def test_one_seed_has_no_bars_and_says_so(figures: list[Figure], tmp_path: Path) -> None:
    plot_tickets([tmp_path / "a.svg"], summary("imp", seeds=1), "conv-snn")
    assert figures[0].axes[0].containers[0].has_yerr is False  # type: ignore[attr-defined]
    assert figures[0].get_suptitle() == "conv-snn\none seed"


def test_what_is_close_to_dense_is_drawn_again_enlarged_where_something_collapsed(
    figures: list[Figure], tmp_path: Path
) -> None:
    rows = [ticket("dense", 0.0, 0.9, []), ticket("random", 0.9, 0.1, [])]
    rows += [ticket("imp", sparsity, 0.9 - sparsity / 50, []) for sparsity in (0.5, 0.9)]
    plot_tickets([tmp_path / "a.svg"], summarize_runs([rows]), "conv-snn")
    whole, enlarged = figures[0].axes
    assert whole.get_ylim()[0] < 10
    assert 84 <= enlarged.get_ylim()[0] < 88.2


def test_chance_and_the_trained_network_stand_beside_untrained_weights(
    figures: list[Figure], tmp_path: Path
) -> None:
    plot_search([tmp_path / "a.svg"], summary("edge-popup"), "conv-snn", classes=5)
    levels = {line.get_label(): line.get_xydata() for line in figures[0].axes[0].lines}
    assert np.asarray(levels["chance"])[:, 1].tolist() == [20, 20]
    assert np.asarray(levels["dense network, trained"])[:, 1].tolist() == [90, 90]


def tiles(*titles: str, classes: int | None = 5) -> list[Tile]:
    found = summary("imp", "random")
    return [Tile(title=title, summary=found, classes=classes) for title in titles]


@pytest.mark.parametrize("searched", [False, True])
def test_each_network_and_data_set_has_axes_of_its_own_and_all_have_one_legend(
    searched: bool, figures: list[Figure], tmp_path: Path
) -> None:
    plot_grid([tmp_path / "a.svg"], tiles("a on b", "a on c", "d on b"), searched=searched)
    (figure,) = figures
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a on b", "a on c", "d on b"]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels)) == (4 if searched else 3)
    assert ("chance" in labels) == searched
    assert all(axes.lines for axes in figure.axes)


def test_titles_as_long_as_a_path_leave_room_for_the_axes(tmp_path: Path) -> None:
    names = ("tensors:/" + 40 * "somewhere/", 30 * "words and ", "$x_漢字\x1b[31m")
    plot_grid([tmp_path / "a.svg"], tiles(*names), searched=True)
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_each_halving_of_the_weights_is_one_step_on_the_axis() -> None:
    assert [compute_position(1 - 0.5**n) for n in (0, 1, 2, 5)] == [0, 1, 2, 5]


def test_the_axis_names_the_usual_sparsities() -> None:
    assert choose_ticks([0.5, 0.8, 0.9, 0.95, 0.98]) == [0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98]
    assert choose_ticks([0.25, 0.99]) == [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99]
    assert choose_ticks([0.9]) == [0.9]
    assert 0.415 in choose_ticks([0.415, 0.43])


def test_random_tickets_are_grey_and_no_two_methods_look_alike() -> None:
    given = choose_line_styles(["a", "random", "b", "c", "d", "e", "f"])
    assert given["random"].color == "#888888"
    assert len({look.color for look in given.values()}) == 7
    assert len({(look.marker, look.dashes) for look in given.values()}) == 7


def test_names_lose_the_modules_that_all_share_and_their_middle() -> None:
    assert shorten_names(["net.a.conv1", "net.a.conv2"]) == ["…conv1", "…conv2"]
    assert shorten_names(["net.a", "other.a"]) == ["net.a", "other.a"]
    assert shorten_names(["net.a"]) == ["net.a"]
    (long,) = shorten_names(["abc" + "x" * 90 + "end"])
    assert re.fullmatch(r"abcx+…x+end", long)
    assert len(long) == 34
