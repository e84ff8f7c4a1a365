"""The site, by Sphinx, from the Markdown of a checkout: `sphinx-build -W -c docs . build/site`.

The source folder is the checkout itself, so that links between pages, README and CONTRIBUTING are
the same on the site. A page that no line of `CONTENTS` names fails the build.
"""

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
CONTENTS = {
    "Prune": [
        *("usage", "api", "libraries", "libraries/*", "events", "chips", "exporting"),
        *("files", "reports", "comparing"),
    ],
    "Train": ["tickets", "recipes", "scaling"],
    "Look up": ["cli", "ci", "criteria", "theory", "reliability", "glossary"],
    "Measured": ["results", "performance"],
    "Inside": ["architecture", "extending", "../CONTRIBUTING", "../SECURITY", "../CHANGELOG"],
}

project = "snnprune"
author = "The snnprune maintainers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/**"]
myst_heading_anchors = 4  # as a forge makes them, for links to a section

html_theme = "furo"
html_title = f"snnprune {release}"
html_copy_source = False
html_show_copyright = False


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append to README what the site shows beside every page."""
    del app
    if docname != root_doc:
        return
    for caption, pages in CONTENTS.items():
        listed = "\n".join(f"/docs/{page}".replace("/docs/../", "/") for page in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{listed}\n```\n"


def write_index(app: Sphinx, error: Exception | None) -> None:
    """A site begins at index.html, and this one at README."""
    if error is None and app.builder.name == "html":
        begin = '<!doctype html><meta http-equiv="refresh" content="0; url=README.html">\n'
        Path(app.outdir, "index.html").write_text(begin, "utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", write_index)
