"""What every picture is drawn on and saved from."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.escaping import printable
from snnprune.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    "svg.hashsalt": "snnprune",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "errorbar.capsize": 2,
}
TITLE_PER_INCH = 14.5  # characters of the title


@contextmanager
def drawn(paths: Sequence[Path], *, size: tuple[float, float], conditions: str) -> Iterator[Figure]:
    """A figure of `size` inches with `conditions` above it, written to `paths` after the block.

    Raises:
        OutputError: a file cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        title = wrapped(conditions, int(size[0] * TITLE_PER_INCH))
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        for path in paths:
            save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as what its suffix says.

    Raises:
        OutputError: `path` cannot be written.
    """
    with replacing(path) as temporary:
        # no date: the same numbers give the same file
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most `width` characters."""
    parts = (textwrap.wrap(printable(line), width) for line in text.splitlines())
    return "\n".join(line for lines in parts for line in lines)
