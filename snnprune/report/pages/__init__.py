"""A report as pages for people: `report.html`, which needs nothing else, and `report.md`.

Each section of a page is a function, which asks whether the report has what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from snnprune.files.writing import (
    format_json,
    replace_together,
    require_apart,
    require_free,
    write_text,
)
from snnprune.report.pages.curves import (
    make_accuracy_section,
    make_budget_section,
    make_epochs_section,
    make_grid_section,
    make_tickets_section,
    make_tries_section,
)
from snnprune.report.pages.layers import (
    make_changes_section,
    make_chip_section,
    make_layers_section,
    make_membranes_section,
    make_neurons_section,
    make_scores_section,
    make_trials_section,
)
from snnprune.report.pages.overview import (
    make_comparison_section,
    make_gates_section,
    make_notes_section,
    make_origin_section,
    make_sizes_section,
    make_tuning_section,
    make_warnings_section,
)
from snnprune.report.pages.page import (
    Headline,
    Page,
    PageSection,
    format_bytes,
    format_joules,
    format_points,
    format_whole,
    percent,
    render_card,
    render_fragment,
    render_html,
)
from snnprune.report.pages.theory import (
    make_analysis_section,
    make_construction_section,
    make_crisis_section,
    make_widths_section,
)

Report = Mapping[str, Any]

SectionMaker = Callable[[Report], PageSection | None]
SECTIONS: tuple[SectionMaker, ...] = (
    make_gates_section,
    make_chip_section,
    make_comparison_section,
    make_tuning_section,
    make_accuracy_section,
    make_tickets_section,
    make_grid_section,
    make_tries_section,
    make_budget_section,
    make_trials_section,
    make_analysis_section,
    make_crisis_section,
    make_widths_section,
    make_construction_section,
    make_sizes_section,
    make_layers_section,
    make_changes_section,
    make_neurons_section,
    make_membranes_section,
    make_scores_section,
    make_epochs_section,
    make_warnings_section,
    make_notes_section,
    make_origin_section,
)


NOTEBOOK = (
    make_gates_section,
    make_comparison_section,
    make_layers_section,
    make_warnings_section,
)
"""Those that are shown below a cell."""
FEW = 12
"""Rows of a table below a cell; a longer one is folded away."""


def make_sections(report: Report, sections: Sequence[SectionMaker] = SECTIONS) -> list[PageSection]:
    """Those that the report has something for, in the order of a page."""
    return [found for section in sections if (found := section(report)) is not None]


def render_notebook(report: Report) -> str:
    """The main tables of a report as a piece of HTML, for a notebook that shows a result."""
    page = compose_page(report, NOTEBOOK)
    return render_fragment(replace(page, sections=[*map(_fold_long, page.sections)]))


def _fold_long(section: PageSection) -> PageSection:
    tables = (block for block in section.blocks if block.kind == "table")
    return replace(section, folded=any(len(table.rows) > FEW for table in tables))


def compose_page(report: Report, sections: Sequence[SectionMaker] = SECTIONS) -> Page:
    """Headlines of what matters, then a section for each thing that the report is about."""
    return Page(
        title=f"snnprune {report['command']}",
        subtitle=_format_subtitle(report),
        ok=report["ok"],
        verdict=_format_verdict(report),
        headlines=list(_iter_headlines(report)),
        sections=make_sections(report, sections),
    )


def _format_subtitle(report: Report) -> str:
    """The files that it is about; of a run, its model and data; of several, their folders."""
    files = [PurePath(one["path"]).name for one in report["inputs"]]
    named = [one["name"] for one in (report.get("model"), report.get("data")) if one]
    several = [one["folder"] for one in report.get("runs", [])]
    return ", ".join(several or files or named)


def _format_verdict(report: Report) -> str:
    gates = [one for part in (report, *report.get("files", [])) for one in part.get("gates", [])]
    if not gates:
        return ""
    met = sum(one["met"] is True for one in gates)
    return f"{met} of {len(gates)} gates met"


def _iter_headlines(report: Report) -> Iterator[Headline]:
    totals, last = report.get("totals"), report.get("after") or report.get("evaluation")
    first = report.get("before") or {}
    if totals and "prunable" in totals:
        share = totals["pruned"] / totals["prunable"]
        yield Headline(
            name="sparsity", value=percent(share, 2), note=f"{totals['kept']:,} weights kept"
        )
    if last and last["accuracy"] is not None:
        before = first.get("accuracy")
        note = "" if before is None else format_points(before, last["accuracy"])
        yield Headline(name="accuracy", value=percent(last["accuracy"], 2), note=note)
    yield from _iter_answer_headlines(report)
    yield from _iter_work_headlines(report)
    sizes = (report.get("sizes") or {}).get("after")
    if sizes:
        yield Headline(
            name="packed",
            value=format_bytes(sizes["packed"]),
            note=f"dense {format_bytes(sizes['dense'])}",
        )
    same = (report.get("agreement") or {}).get("spike_agreement")
    if same is not None:
        yield Headline(name="spikes as before", value=percent(same, 2))


def _iter_answer_headlines(report: Report) -> Iterator[Headline]:
    """How often two networks that were run together are right, where nothing else says so."""
    answers = (report.get("agreement") or {}).get("answers")
    if not answers or "after" in report or report.get("evaluation"):
        return
    first, other = answers["accuracies"]
    yield Headline(name="accuracy of the first", value=percent(first, 2))
    yield Headline(
        name="accuracy of the other", value=percent(other, 2), note=format_points(first, other)
    )


def _iter_work_headlines(report: Report) -> Iterator[Headline]:
    work = report.get("workload") or {}
    first, last = (work.get("before"), work.get("after")) if "after" in work else (None, work)
    if not last:
        return
    done = (last["macs"] + last["acs"]) / last["samples"]
    before = first and (first["macs"] + first["acs"]) / first["samples"]
    note = f"a sample, {done / before:.0%} of before" if before else "a sample"
    yield Headline(name="synaptic operations", value=format_whole(done), note=note)
    yield Headline(
        name="energy", value=format_joules(last["energy_pj"]), note="a sample, arithmetic"
    )


REPORT = "report.json"
PAGES = ("report.html", "report.md")
FILES = (REPORT, *PAGES)


def require_room(folder: Path, *, force: bool, junit: Path | None = None) -> None:
    """Refuse, before any work is done, a folder in which a report cannot be left.

    Raises:
        OutputError: one of its files is there or cannot be made.
        UsageError: `junit` is one of them.
    """
    if junit is not None:
        require_apart(junit, (folder / name for name in FILES), field="--junit")
    for name in FILES:
        require_free(folder / name, force=force)


def write_report(
    folder: Path, report: Mapping[str, Any], *, within: Path | None = None
) -> tuple[Path, ...]:
    """Write `report.json` and its pages into `folder`, together; the files.

    `within` is as for `files.writing.replace_together`.

    Raises:
        OutputError: one cannot be written.
    """
    return _write_files(folder, report, FILES, within)


def write_pages(folder: Path, report: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write `report.html` and `report.md` into `folder`, together; the files.

    Raises:
        OutputError: one cannot be written.
    """
    return _write_files(folder, report, PAGES, None)


def _write_files(
    folder: Path, report: Mapping[str, Any], names: tuple[str, ...], within: Path | None
) -> tuple[Path, ...]:
    texts = _render_texts(report)
    paths = tuple(folder / name for name in names)
    with replace_together(*paths, within=within) as staged:
        for name, path in zip(names, staged, strict=True):
            write_text(path, texts[name])
    return paths


def _render_texts(report: Mapping[str, Any]) -> dict[str, str]:
    """By the name of the file."""
    page = compose_page(report)
    return {
        REPORT: format_json(report),
        **dict(zip(PAGES, (render_html(page), render_card(page, report)), strict=True)),
    }
