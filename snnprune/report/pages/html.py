"""A page as one HTML file: no script, nothing from outside, whatever a file calls its tensors."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from snnprune.errors.text import make_printable
from snnprune.report.pages.page import Page
from snnprune.report.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from snnprune.runtime import __version__

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
    """The whole text; pictures are ours and stand in it as they are."""
    style = files("snnprune.report.pages").joinpath("page.css").read_text("utf-8")
    return _load_template().render(
        page=page,
        style=Markup(style),
        style_hash=_hash_style(style),
        version=__version__,
    )


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
