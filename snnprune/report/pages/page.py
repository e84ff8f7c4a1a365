"""A page: tables, facts and pictures as data, and what is made of them, HTML and Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any, Literal
from xml.etree import ElementTree

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from snnprune import errors
from snnprune.data import find_task
from snnprune.errors import escape_markup, format_split, format_table, make_printable
from snnprune.report.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from snnprune.runtime import __version__

BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
NOTHING = "–"
percent = partial(errors.format_percent, sign=" %", unknown=NOTHING)
small_percent = partial(errors.format_small_percent, sign=" %", unknown=NOTHING)


def format_whole(count: float | None) -> str:
    """A count, or a mean of counts: whole from 100 on."""
    return NOTHING if count is None else errors.format_whole(count)


def format_rate(value: float | None) -> str:
    """Spikes per neuron per time step."""
    return NOTHING if value is None else f"{value:.4f}"


def format_joules(picojoules: float | None) -> str:
    """An energy in the unit that leaves a number from 1 to 1000."""
    return NOTHING if picojoules is None else errors.format_joules(picojoules)


def format_bytes(count: float | None) -> str:
    """A size in the unit that leaves a number from 1 to 1000."""
    if count is None:
        return NOTHING
    size, unit = next((pair for pair in BYTES if count >= pair[0]), (1.0, "bytes"))
    return f"{count / size:.4g} {unit}" if size > 1 else f"{count:,.0f} bytes"


def format_change(before: float | None, after: float | None) -> str:
    """How much less or more, relative to before."""
    if before is None or after is None or not before:
        return NOTHING
    relative = after / before - 1
    if before == after:
        return "same"
    return f"{100 * relative:+.1f} %" if abs(relative) >= 5e-4 else "under 0.1 %"


def format_points(before: float | None, after: float | None) -> str:
    """The difference of two shares, in percentage points."""
    if before is None or after is None:
        return NOTHING
    return f"{100 * (after - before):+.2f} points"


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of text; a cell that is None is not known."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    names: int = 1
    """How many columns from the left hold names; the others are numbers, flush right."""
    caption: str = ""
    kind: Literal["table"] = "table"


def drop_unknown_columns(table: TextTable, unknown: str) -> TextTable:
    """The table without the columns of numbers of which none is known."""
    known = [
        number
        for number in range(len(table.titles))
        if number < table.names or any(row[number] not in (None, unknown) for row in table.rows)
    ]
    return replace(
        table,
        titles=[table.titles[number] for number in known],
        rows=[[row[number] for number in known] for row in table.rows],
    )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An SVG of ours, which may stand in HTML as it is."""

    svg: str
    alt: str
    on_white: bool = False
    """Whether its colours are for light paper alone."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One picture, or many small ones side by side."""

    pictures: Sequence[Picture]
    caption: str
    wide: bool = False
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with what they are."""

    pairs: Sequence[tuple[str, str]]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, kw_only=True)
class TextLines:
    """Text, a line each."""

    lines: Sequence[str]
    kind: Literal["lines"] = "lines"


Block = TextTable | Pictures | Facts | TextLines


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """What belongs under one title."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False
    """Whether it is opened by a click; in print it is open."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One number at the top."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """All of a report."""

    title: str
    subtitle: str
    ok: bool
    verdict: str
    """What came of the gates, or nothing."""
    headlines: Sequence[Headline]
    sections: Sequence[PageSection]


SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
NAMED = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#b0b0b0": "var(--line)",
    **{
        color.lower(): f"var(--{name})"
        for name, color in {
            "blue": BLUE,
            "vermillion": VERMILLION,
            "green": GREEN,
            "purple": PURPLE,
            "orange": ORANGE,
            "sky": SKY,
            "grey": GREY,
        }.items()
    },
}
PIXELS = 4 / 3  # of a point, as a page has it
COLOR = re.compile(r"#[0-9a-f]{6}\b")
FAMILY = re.compile(r"font-family:[^;\"]*;?\s*")
NUMBER = re.compile(r"-?\d+\.\d{3,}")
REFERENCE = re.compile(r"url\(#([\w-]+)\)")


def draw_inline(draw: Callable[[Path], None], name: str) -> str:
    """The SVG that `draw` writes to a path, for a page in which `name` is its own alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.svg"
        draw(path)
        return make_inline(path.read_text("utf-8"), name)


def make_inline(text: str, name: str) -> str:
    """An SVG of matplotlib without what a page has itself; its ids begin with `name`."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)
    for part in list(root):
        if part.tag == f"{{{SVG}}}metadata":
            root.remove(part)
        for style in part.findall(f"{{{SVG}}}style"):  # it would be one for the whole page
            part.remove(style)
    for part in root.iter():
        _adapt(part, name)
    box = root.get("viewBox", "0 0 100 100")
    width = float(box.split()[2])
    for attribute in ("height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib.pop("width")
    root.set("style", f"max-width: {PIXELS * width:.0f}px")
    root.set("role", "img")
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(part: ElementTree.Element, name: str) -> None:
    attributes = part.attrib
    if part.tag == f"{{{SVG}}}g" or part.tag == f"{{{SVG}}}text":
        attributes.pop("id", None)
    elif "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if LINK in attributes:
        attributes["href"] = attributes.pop(LINK).replace("#", f"#{name}-")
    for key, value in attributes.items():
        if key in ("d", "x", "y", "points"):
            value = NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value).replace("\n", "")
        elif key == "style":
            value = FAMILY.sub("", value)
            value = COLOR.sub(lambda found: NAMED.get(found[0], found[0]), value)
        attributes[key] = REFERENCE.sub(rf"url(#{name}-\1)", value)
    # blanks between parts weigh more than some pictures
    if part.tag != f"{{{SVG}}}text":
        part.text = None
    part.tail = None


def render_html(page: Page) -> str:
    """The page as one file: no script, nothing from outside, whatever a file calls its tensors.

    Pictures are ours and stand in it as they are.
    """
    style = files("snnprune.report.pages").joinpath("page.css").read_text("utf-8")
    return _load_template().render(
        page=page,
        style=Markup(style),
        style_hash=_hash_style(style),
        version=__version__,
    )


def render_fragment(page: Page) -> str:
    """The page as a piece of another one, in the colours of that: no script, no pictures."""
    return _make_environment().get_template("fragment.html").render(page=page)


@cache
def _make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("snnprune.report.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = make_printable
    environment.filters["drawn"] = Markup
    return environment


def _load_template() -> Template:
    return _make_environment().get_template("page.html")


def _hash_style(style: str) -> str:
    """As a content security policy names an inline style that it allows."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


TAGS = ("snnprune", "spiking-neural-network", "pruning", "sparsity")
UNKNOWN_TASK = {"type": "other", "name": "Classification"}
"""The Hub wants one beside each result."""


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
    metrics, task = list(_iter_metrics(report)), find_task(data["name"] if data else None)
    matter: dict[str, Any] = {
        "library_name": "snnprune",
        "tags": list(TAGS),
        **({"pipeline_tag": task} if task else {}),
        **({"base_model": base} if base and report["command"] == "prune" else {}),
        **({"datasets": [make_printable(data["name"], 96)]} if data else {}),
    }
    if metrics and base:
        matter["metrics"] = [one["type"] for one in metrics]
        result = {
            "task": _describe_task(task),
            "dataset": _describe_dataset(report),
            "metrics": metrics,
        }
        matter["model-index"] = [{"name": base, "results": [result]}]
    return matter


def _describe_task(task: str | None) -> dict[str, str]:
    named = {"type": task, "name": task.replace("-", " ").capitalize()} if task else None
    return named or UNKNOWN_TASK


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
