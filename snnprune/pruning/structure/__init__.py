"""Structures, which say what weights may only go together: whole channels, or N:M patterns.

Of every M inputs that follow each other an N:M pattern keeps N. What a file says of layers that are
smaller than those of its model is in its metadata. Importing this package imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snnprune.checkpoint.containers import describe_checkpoint
from snnprune.checkpoint.header import MalformedJsonError, is_shape, parse
from snnprune.errors import InputError, did_you_mean, error_class_for

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.graph.network import Layer
    from snnprune.masks import Masks
    from snnprune.pruning.prune import PruneResult
    from snnprune.pruning.score import Scores

UNSTRUCTURED, CHANNELS = "unstructured", "channels"
LARGEST_GROUP = 64  # inputs of a group


@dataclass(frozen=True, kw_only=True)
class Structure:
    """`unstructured`, `channels`, or of every `group` inputs `kept`."""

    name: str = UNSTRUCTURED
    kept: int = 0
    group: int = 0

    @property
    def is_pattern(self) -> bool:
        """Whether it is N:M."""
        return self.group > 0

    @property
    def sparsity(self) -> float:
        """Of a layer that has the pattern."""
        return 1 - self.kept / self.group


def parse_structure(text: str, *, field: str = "--structure") -> Structure:
    """The structure of that name.

    Raises:
        UsageError: there is none, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if text in (UNSTRUCTURED, CHANNELS):
        return Structure(name=text)
    found = re.fullmatch(r"(\d+):(\d+)", text)
    kept, group = map(int, found.groups()) if found else (0, 0)
    if not 0 < kept < group <= LARGEST_GROUP:
        raise error_class_for(field)(
            f"unknown structure {text!r}",
            field=field,
            hint=_format_hint(text),
        )
    return Structure(name=text, kept=kept, group=group)


def _format_hint(text: str) -> str:
    """What may have been meant, or all there is."""
    meant = did_you_mean(text, (UNSTRUCTURED, CHANNELS))
    if meant.startswith("did"):
        return meant
    return f"choose {UNSTRUCTURED}, {CHANNELS} or N:M with 0 < N < M <= {LARGEST_GROUP}, as 2:4"


STRUCTURE = "snnprune.structure"
"""Metadata of a file: `channels` where its layers are smaller than those of its model."""
SMALLER = "snnprune.smaller"
"""Metadata of such a file: JSON from the model's key to the shape of what is smaller."""

LONGEST_KEY = 1000  # characters of a key

Shapes = Mapping[str, tuple[int, ...]]
Description = str | Path | Mapping[str, Sequence[int]]


def format_metadata(shapes: Shapes) -> dict[str, str]:
    """The metadata of a file that holds tensors of these shapes, smaller than its model's."""
    text = json.dumps({key: list(shape) for key, shape in shapes.items()})
    return {STRUCTURE: CHANNELS, SMALLER: text}


def read_shapes(metadata: Mapping[str, str], held: Shapes) -> Shapes | None:
    """The shapes that a file describes; None for one as large as its model.

    `held` are those of all its tensors, which counted before files described theirs.

    Raises:
        InputError: the description is none.
    """
    if metadata.get(STRUCTURE) != CHANNELS:
        return None
    return _parse_shapes(metadata[SMALLER]) if SMALLER in metadata else held


def load_shapes(description: Description) -> Shapes:
    """The shapes that a file (by its path), JSON text or a mapping describes.

    Raises:
        InputError: it describes none.
    """
    if isinstance(description, Mapping):
        return _check_shapes(description)
    if isinstance(description, str) and description.lstrip().startswith("{"):
        return _parse_shapes(description)
    return _read_description(Path(description))


def _read_description(path: Path) -> Shapes:
    about = describe_checkpoint(path)
    try:
        shapes = read_shapes(about.metadata, {info.name: info.shape for info in about.tensors})
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


def _parse_shapes(text: str) -> Shapes:
    try:
        return _check_shapes(parse(text.encode("utf-8", "surrogatepass")))
    except MalformedJsonError as error:
        raise InputError(f"the text {error}", field=SMALLER) from None


def _check_shapes(shapes: object) -> Shapes:
    if not isinstance(shapes, Mapping):
        raise InputError("is not a table of shapes", field=SMALLER)
    for key, shape in shapes.items():
        listed = list(shape) if isinstance(shape, tuple) else shape
        if not isinstance(key, str) or len(key) > LONGEST_KEY or not is_shape(listed):
            raise InputError(f"has no shape for {str(key)[:80]!r}", field=SMALLER)
    return {key: tuple(shape) for key, shape in shapes.items()}


class PatternCutting:
    """Cuts to N:M along the inputs, at each output and place of the kernel by itself.

    A layer whose inputs (of a group of a grouped convolution) are no multiple of M stays as it is.
    Mishra et al. 2021, arXiv 2104.08378, for 2:4.
    """

    def __init__(self, structure: Structure, layers: Mapping[str, Layer] | None = None) -> None:
        """`layers` say how parameters lie to weights; without them each is its weight."""
        self.structure, self.layers = structure, layers or {}

    def __call__(
        self, weights: Mapping[str, Tensor], scores: Scores, _: float, alive: Masks | None
    ) -> PruneResult:
        """The N of each M with the highest scores; ties by |w|, then the last stay."""
        from snnprune.pruning.prune import PruneResult

        kept = {key: _get_mask(key, weight, alive) for key, weight in weights.items()}
        masks = {
            key: kept[key] & self._make_mask(key, scores.values[key], weight)
            if self.suits(self._weight(key, weight))
            else kept[key]
            for key, weight in weights.items()
        }
        zeros = sum(int((~mask).sum()) for mask in kept.values())
        return PruneResult(
            masks=masks, already_zero=zeros, warnings=tuple(self._list_notes(weights))
        )

    def _weight(self, key: str, held: Tensor) -> Tensor:
        layer = self.layers.get(key)
        return held if layer is None else layer.weight_of(held)

    def _make_mask(self, key: str, scores: Tensor, held: Tensor) -> Tensor:
        """The pattern's mask in the form of the parameter."""
        mask = self.mask(self._weight(key, scores), self._weight(key, held))
        layer = self.layers.get(key)
        return mask if layer is None else layer.parameter_of(mask)

    def suits(self, weight: Tensor) -> bool:
        """Whether a weight (out, in, *kernel) can have the pattern."""
        return weight.shape[1] % self.structure.group == 0

    def mask(self, scores: Tensor, weight: Tensor) -> Tensor:
        """The pattern's mask of one weight (out, in, *kernel)."""
        import torch

        group, goes = self.structure.group, self.structure.group - self.structure.kept
        by_group = scores.double().movedim(1, -1).unflatten(-1, (-1, group))
        sizes = weight.double().abs().movedim(1, -1).unflatten(-1, (-1, group))
        first = sizes.argsort(dim=-1, stable=True)
        order = first.gather(-1, by_group.gather(-1, first).argsort(dim=-1, stable=True))
        kept = torch.ones_like(by_group, dtype=torch.bool)
        kept.scatter_(-1, order[..., :goes], False)
        return kept.flatten(-2).movedim(-1, 1)

    def _list_notes(self, weights: Mapping[str, Tensor]) -> list[str]:
        name, group = self.structure.name, self.structure.group
        return [
            f"{key} has no {name}: {weight.shape[1]} inputs are no multiple of {group}"
            for key, held in weights.items()
            if not self.suits(weight := self._weight(key, held))
        ]


def _get_mask(key: str, weight: Tensor, alive: Masks | None) -> Tensor:
    return weight != 0 if alive is None else alive[key]
