"""What a file that snnprune writes says of itself: its own model and data, as JSON in metadata.

Only built-in names are taken from a file: a stranger's file must not choose code to run. Arguments
that were objects come back as `StoredReference`, which build nothing.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from snnprune.data import DataSpec, is_built_in
from snnprune.models import MODELS, NOTE, ModelSpec
from snnprune.plugins.names import decode_section
from snnprune.runtime import KEY, __version__

MAX_NUMBER = 2**16  # of any argument that a file may choose
MAX_PICTURE = 2**28  # channels x pixels x time steps, likewise
DATA_SET = "snnprune.data"


def make_metadata(
    command: str, *, model: ModelSpec | None = None, data: DataSpec | None = None, **more: object
) -> dict[str, str]:
    """Metadata for a file; `more` is stored as `snnprune.<name>`."""
    metadata = {"format": "pt", KEY: __version__, "snnprune.command": command}
    if model is not None:
        metadata |= model.as_metadata()
    if data is not None:
        metadata[DATA_SET] = json.dumps(data.as_dict())
    return metadata | {f"snnprune.{name}": str(value) for name, value in more.items()}


def read_model_spec(metadata: Mapping[str, str], *, asked: str | None = None) -> ModelSpec | None:
    """The built-in model that a file says it is of, or the user's own one that was `asked` for."""
    found = _parse_object(metadata.get(NOTE))
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
    name = str(found.get("name"))
    if not (name == asked or is_built_in(name)) or not isinstance(seed, int):
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
