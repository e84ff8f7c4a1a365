"""A page as Markdown, with the front matter that makes it a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from snnprune.errors.text import escape_markup, format_split, format_table, make_printable
from snnprune.report.pages.page import (
    Block,
    Facts,
    Page,
    PageSection,
    Pictures,
    TextLines,
    TextTable,
)

TAGS = ("snnprune", "spiking-neural-network", "pruning", "sparsity")
TASK = {"type": "image-classification", "name": "Image classification"}


def render_card(page: Page, report: Mapping[str, Any]) -> str:
    """Front matter as the Hugging Face Hub reads it, then the page without its pictures."""
    front = yaml.safe_dump(_make_front_matter(report), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {escape_markup(page.title)}: {escape_markup(page.subtitle)}",
        *([f"**{escape_markup(page.verdict)}**"] if page.verdict else []),
        *(part for section in page.sections for part in _iter_section_lines(section)),
        "Pictures are in `report.html`, all numbers in the JSON report beside it.",
    ]
    return "\n\n".join(parts) + "\n"


def _iter_section_lines(section: PageSection) -> Iterator[str]:
    texts = [text for block in section.blocks if (text := _format_block(block))]
    if texts:
        yield f"## {section.title}"
        yield from texts


def _format_block(block: Block) -> str:
    if isinstance(block, TextTable):
        right = range(block.names, len(block.titles))
        body = [[cell or "" for cell in row] for row in block.rows]
        head = [escape_markup(block.caption), ""] if block.caption else []
        return "\n".join([*head, format_table(block.titles, body, right)])
    if isinstance(block, Facts):
        return "\n".join(
            f"- {escape_markup(name)}: {escape_markup(value)}" for name, value in block.pairs
        )
    if isinstance(block, TextLines):
        return "\n\n".join(escape_markup(line) for line in block.lines)
    assert isinstance(block, Pictures)
    return ""


def _make_front_matter(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a hub can sort and search by."""
    inputs, data = report["inputs"], report.get("data")
    base = make_printable(PurePath(inputs[0]["path"]).stem, 96) if inputs else None
    metrics = list(_iter_metrics(report))
    matter: dict[str, Any] = {
        "library_name": "snnprune",
        "tags": list(TAGS),
        "pipeline_tag": TASK["type"],
        **({"base_model": base} if base and report["command"] == "prune" else {}),
        **({"datasets": [make_printable(data["name"], 96)]} if data else {}),
    }
    if metrics and base:
        matter["metrics"] = [one["type"] for one in metrics]
        result = {"task": TASK, "dataset": _describe_dataset(report), "metrics": metrics}
        matter["model-index"] = [{"name": base, "results": [result]}]
    return matter


def _describe_dataset(report: Mapping[str, Any]) -> dict[str, str]:
    data, last = report.get("data"), _get_last_evaluation(report)
    name = make_printable(data["name"], 96) if data else "unknown"
    split = {"split": format_split(last["images"])} if last else {}
    return {"type": name, "name": name, **split}


def _get_last_evaluation(report: Mapping[str, Any]) -> Any:
    """What was measured, after pruning where there was any."""
    return report.get("after") or report.get("evaluation")


def _iter_metrics(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Accuracy, sparsity, operations and energy, after pruning where there was any."""
    last = _get_last_evaluation(report)
    totals, work = report.get("totals"), report.get("workload") or {}
    if last and last["accuracy"] is not None:
        yield {"type": "accuracy", "name": "Accuracy", "value": last["accuracy"]}
    if totals and "prunable" in totals:
        value = totals["pruned"] / totals["prunable"]
        yield {"type": "sparsity", "name": "Sparsity of the prunable weights", "value": value}
    last = work.get("after", work)
    if last:
        value = (last["macs"] + last["acs"]) / last["samples"]
        yield {"type": "synops", "name": "Synaptic operations per sample", "value": value}
        yield {"type": "energy", "name": "Energy per sample (pJ)", "value": last["energy_pj"]}
