"""What a file says of layers that are smaller than those of its model, in metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from snnprune.checkpoint import describe
from snnprune.checkpoint.containers.safetensors.header import is_shape
from snnprune.checkpoint.containers.safetensors.strict_json import MalformedJsonError, parse
from snnprune.errors import InputError
from snnprune.structure.structure import CHANNELS

STRUCTURE = "snnprune.structure"
"""Metadata of a file: `channels` where its layers are smaller than those of its model."""
SMALLER = "snnprune.smaller"
"""Metadata of such a file: JSON from the model's key to the shape of what is smaller."""

LONGEST = 1000  # characters of a key

Shapes = Mapping[str, tuple[int, ...]]
Description = str | Path | Mapping[str, Sequence[int]]


def metadata_of(shapes: Shapes) -> dict[str, str]:
    """The metadata of a file that holds tensors of these shapes, smaller than its model's."""
    text = json.dumps({key: list(shape) for key, shape in shapes.items()})
    return {STRUCTURE: CHANNELS, SMALLER: text}


def shapes_in(metadata: Mapping[str, str], held: Shapes) -> Shapes | None:
    """The shapes that a file describes; None for one as large as its model.

    `held` are those of all its tensors, which counted before files described theirs.

    Raises:
        InputError: the description is none.
    """
    if metadata.get(STRUCTURE) != CHANNELS:
        return None
    return _parsed(metadata[SMALLER]) if SMALLER in metadata else held


def shapes_of(description: Description) -> Shapes:
    """The shapes that a file (by its path), JSON text or a mapping describes.

    Raises:
        InputError: it describes none.
    """
    if isinstance(description, Mapping):
        return _checked(description)
    if isinstance(description, str) and description.lstrip().startswith("{"):
        return _parsed(description)
    return _read(Path(description))


def _read(path: Path) -> Shapes:
    about = describe(path)
    try:
        shapes = shapes_in(about.metadata, {info.name: info.shape for info in about.tensors})
    except InputError as error:
        error.file = str(path)
        raise
    if shapes is None:
        raise InputError(
            "says of no layers that they are smaller",
            file=path,
            field=SMALLER,
            hint="load it as it is: its shapes are those of its model",
        )
    return shapes


def _parsed(text: str) -> Shapes:
    try:
        return _checked(parse(text.encode("utf-8", "surrogatepass")))
    except MalformedJsonError as error:
        raise InputError(f"the text {error}", field=SMALLER) from None


def _checked(shapes: object) -> Shapes:
    if not isinstance(shapes, Mapping):
        raise InputError("is not a table of shapes", field=SMALLER)
    for key, shape in shapes.items():
        listed = list(shape) if isinstance(shape, tuple) else shape
        if not isinstance(key, str) or len(key) > LONGEST or not is_shape(listed):
            raise InputError(f"has no shape for {str(key)[:80]!r}", field=SMALLER)
    return {key: tuple(shape) for key, shape in shapes.items()}
