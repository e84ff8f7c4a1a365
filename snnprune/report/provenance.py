"""What a file that snnprune writes says of itself: its own model and data, as JSON in metadata.

Only built-in names are taken from a file: a stranger's file must not choose code to run. Arguments
that were objects come back as `StoredReference`, which build nothing.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnprune.data.catalogue import DATA
from snnprune.models import MODELS, ModelSpec
from snnprune.plugins.references import decode_section, encode_references
from snnprune.quantities import Share
from snnprune.version import KEY, __version__

MAX_NUMBER = 2**16  # of any argument that a file may choose
MAX_PICTURE = 2**28  # channels x pixels x time steps, likewise
MODEL, DATA_SET = "snnprune.model", "snnprune.data"


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A data set by name and how its training images were split."""

    name: str
    validation: Share = 0.0
    seed: int = 0
    evaluation: str | None = None
    """Another set that choices were made on; none of the training images was set aside then."""

    def as_dict(self) -> dict[str, Any]:
        """For metadata and reports."""
        known = {"name": self.name, "validation": self.validation, "seed": self.seed}
        return known if self.evaluation is None else {**known, "evaluation": self.evaluation}


def make_metadata(
    command: str, *, model: ModelSpec | None = None, data: DataSpec | None = None, **more: object
) -> dict[str, str]:
    """Metadata for a file; `more` is stored as `snnprune.<name>`."""
    metadata = {"format": "pt", KEY: __version__, "snnprune.command": command}
    if model is not None:
        metadata |= make_model_note(model)
    if data is not None:
        metadata[DATA_SET] = json.dumps(data.as_dict())
    return metadata | {f"snnprune.{name}": str(value) for name, value in more.items()}


def make_model_note(model: ModelSpec) -> dict[str, str]:
    """The metadata that name a model."""
    return {MODEL: json.dumps({"name": model.name, "args": encode_references(dict(model.args))})}


def read_model_spec(metadata: Mapping[str, str], *, asked: str | None = None) -> ModelSpec | None:
    """The built-in model that a file says it is of, or the user's own one that was `asked` for."""
    found = _parse_object(metadata.get(MODEL))
    args = found.get("args")
    if (
        str(found.get("name")) not in {*MODELS.rows, asked}
        or not isinstance(args, dict)
        or not _is_modest(args)
    ):
        return None
    return ModelSpec(name=found["name"], args=found["args"])


def read_data_spec(metadata: Mapping[str, str], *, asked: str | None = None) -> DataSpec | None:
    """The built-in data set that a file was trained on, or the user's own that was `asked` for."""
    found = _parse_object(metadata.get(DATA_SET))
    validation, seed = found.get("validation", 0.0), found.get("seed", 0)
    if str(found.get("name")) not in {*DATA.rows, asked} or not isinstance(seed, int):
        return None
    if not isinstance(validation, int | float) or not 0 <= validation < 1:
        return None
    other = found.get("evaluation")
    return DataSpec(
        name=found["name"],
        validation=validation,
        seed=seed,
        evaluation=other if isinstance(other, str) else None,
    )


def _is_modest(args: dict[str, Any]) -> bool:
    """Whether a network of these arguments takes a sane amount of memory and time to try."""
    numbers = [value for value in args.values() if isinstance(value, int | float)]
    picture = [args.get(name, 1) for name in ("in_channels", "size", "size", "time_steps")]
    if not all(isinstance(value, int) for value in picture):
        return False
    return all(0 <= number <= MAX_NUMBER for number in numbers) and math.prod(picture) < MAX_PICTURE


def _parse_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}", object_hook=decode_section)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
