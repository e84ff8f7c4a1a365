"""What a report may hold: types of its parts, and the JSON Schema of all reports.

`report.schema.json` beside this file is what `text` gives. `snnprune.jobs.reports` makes it of the
types; a test holds the two together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, reduce
from importlib.resources import files
from operator import or_
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, NotRequired, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, with_config
from pydantic_core import CoreSchema
from torch import Tensor
from typing_extensions import TypedDict, get_type_hints

from snnprune.data import DataSpec
from snnprune.measure import Natural, Share, evaluation
from snnprune.measure.evaluation import Activity

FILE = "report.schema.json"


def text() -> str:
    """The JSON Schema (draft 2020-12) of what `--json` prints and `report.json` holds."""
    return files(__name__).joinpath(FILE).read_text("utf-8")


closed = with_config(ConfigDict(extra="forbid"))
T = TypeVar("T", bound=type)


def rename_in_schema(name: str) -> Callable[[T], T]:
    """The name of a type there, where another class has it already."""

    def rename(kind: T) -> T:
        kind.__name__ = kind.__qualname__ = name
        return kind

    return rename


@dataclass(frozen=True, kw_only=True, eq=False)
class AsDict:
    """Says, in `Annotated`, that a dict of the fields of a dataclass is meant, and of no others.

    All of them are required, and what their docstrings say is not part of the schema.
    """

    name: str = ""
    """In the schema; that of the dataclass unless given."""
    about: str = ""
    """What the schema says of it."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Types of keys that stand beside the fields, or in the place of one."""
    before: str = ""
    """The field that this stands in front of; it comes last unless given."""
    last: Mapping[str, Any] = field(default_factory=dict)
    """Types of keys after all others."""
    without: tuple[str, ...] = ()
    """Fields that the dict has not."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handler.generate_schema(_make_typed_dict(source, self))


@cache
def _make_typed_dict(source: Any, how: AsDict) -> Any:
    """The closed TypedDict with the keys of a dataclass."""
    hints = get_type_hints(source, include_extras=True)
    names = [one.name for one in fields(source) if one.name not in how.without]
    keys = [(name, how.more.get(name) or _convert_hint(hints[name])) for name in names]
    place = names.index(how.before) if how.before else len(names)
    keys[place:place] = [(name, how.more[name]) for name in how.more if name not in names]
    keys += how.last.items()
    name = how.name or source.__name__
    made: Any = TypedDict(name, dict(keys))  # type: ignore[misc]
    made.__doc__ = how.about or None
    return closed(made)


def _convert_hint(hint: Any) -> Any:
    """What JSON has of a type: dicts of dataclasses, lists of tuples, sequences and vectors."""
    if hint is Tensor:
        return list[float]
    if is_dataclass(hint):
        return Annotated[hint, AsDict()]
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        several = GenericAlias(list, (_convert_hint(args[0]),))
        if args[1:] == (...,):
            return several
        return Annotated[several, Field(min_length=len(args), max_length=len(args))]
    if origin is Sequence:
        return GenericAlias(list, (_convert_hint(args[0]),))
    if origin in (Union, UnionType):
        return reduce(or_, map(_convert_hint, args))
    if origin is Mapping:
        return GenericAlias(dict, (args[0], _convert_hint(args[1])))
    return hint


# parts that reports of several commands have; counts are stored, rates and shares are in [0, 1]
Number = float
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Channels = Annotated[Activity, AsDict(name="Channels", without=("firing_rate",))]
Evaluation = Annotated[
    evaluation.Evaluation,
    AsDict(
        more={
            "accuracy": Share | None,
            "loss": float | None,
            "firing_rates": dict[str, Number],
            "activity": dict[str, Channels],
            "images": Literal["test", "validation", "train", "given"],
        },
        before="activity",
    ),
]
Data = Annotated[
    DataSpec, AsDict(name="Data", more={"validation": Share, "evaluation": NotRequired[str]})
]


@closed
class File(TypedDict):
    path: str
    sha256: NotRequired[Sha256]
    role: NotRequired[str]


@closed
class Fault(TypedDict):
    code: Annotated[int, Field(ge=1, le=143)]
    """The exit code."""
    file: str | None
    field: str | None
    message: str
    hint: str | None


@closed
class Model(TypedDict):
    name: str
    args: NotRequired[dict[str, Any]]
    forward: NotRequired[str | None]
    readout: NotRequired[str]


@closed
class Totals(TypedDict):
    prunable: Natural
    kept: Natural | None
    pruned: Natural | None
    weights: NotRequired[Natural]
    parameters: Natural


@closed
class Config(TypedDict):
    """The file of settings, and those that were taken from it."""

    path: str
    settings: list[str]


@closed
class Frame(TypedDict):
    """Keys of every report, beside the name of its command."""

    schema: Literal[1]
    tool_version: str
    command_line: str | None
    ok: bool
    error: NotRequired[Fault]
    inputs: list[File]
    seed: Natural
    device: str
    versions: dict[str, str]
    model: Model | None
    data: Data | None
    config: NotRequired[Config]
    excluded: list[str]
    notes: list[str]
    """What was done, where it is worth a line."""
    warnings: list[str]
    """What may make a result wrong."""
