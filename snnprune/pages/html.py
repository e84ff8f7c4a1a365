"""A page as one HTML file: no script, nothing from outside, whatever a file calls its tensors."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from snnprune import __version__
from snnprune.escaping import printable
from snnprune.pages.page import Page


def html(page: Page) -> str:
    """The whole text; pictures are ours and stand in it as they are."""
    style = files("snnprune.pages").joinpath("page.css").read_text("utf-8")
    return _template().render(
        page=page,
        style=Markup(style),
        style_hash=_hash(style),
        version=__version__,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("snnprune.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = printable
    environment.filters["drawn"] = Markup
    return environment


def _template() -> Template:
    return _environment().get_template("page.html")


def _hash(style: str) -> str:
    """As a content security policy names an inline style that it allows."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
