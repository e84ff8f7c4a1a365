"""Parts of reports whose keys are the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict

from snnprune.measure import Natural, Share
from snnprune.report.schema import AsDict, rename_in_schema


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Nothing of this is in a schema."""

    count: Natural = 0
    share: Share | None = None
    pair: tuple[Natural, Natural] = (0, 0)
    parts: tuple[Inner, ...] = ()
    sizes: Mapping[str, Natural | None]
    current: Tensor | None = None
    names: Sequence[str] = ()


def schema_of(how: AsDict) -> dict[str, Any]:
    return TypeAdapter(Annotated[Outer, how]).json_schema()


def test_every_field_is_a_required_key_and_there_are_no_others() -> None:
    found = schema_of(AsDict(name="Named"))
    assert found["title"] == "Named"
    assert "description" not in found
    assert found["additionalProperties"] is False
    names = ["count", "share", "pair", "parts", "sizes", "current", "names"]
    assert found["required"] == list(found["properties"]) == names


def test_keys_that_are_no_fields_stand_where_they_are_put() -> None:
    how = AsDict(more={"whole": bool, "count": str}, before="pair", without=("current",))
    found = schema_of(how)
    expected = ["count", "share", "whole", "pair", "parts", "sizes", "names"]
    assert list(found["properties"]) == expected
    assert found["properties"]["count"]["type"] == "string"


def test_a_part_says_what_it_is_about_and_its_last_keys_come_last() -> None:
    how = AsDict(about="Of something.", more={"whole": bool}, last={"end": str}, before="count")
    found = schema_of(how)
    assert found["description"] == "Of something."
    assert list(found["properties"])[:2] == ["whole", "count"]
    assert list(found["properties"])[-1] == "end"


def test_a_type_is_called_in_the_schema_as_it_is_renamed() -> None:
    @rename_in_schema("Known")
    class Other(TypedDict):
        key: int

    assert TypeAdapter(list[Other]).json_schema()["items"] == {"$ref": "#/$defs/Known"}


def test_ranges_lists_and_inner_dataclasses_are_those_of_json() -> None:
    found = schema_of(AsDict())
    about, inner = found["properties"], found["$defs"]["Inner"]
    assert about["count"] == {"minimum": 0, "title": "Count", "type": "integer"}
    assert (about["pair"]["minItems"], about["pair"]["maxItems"]) == (2, 2)
    assert about["parts"]["items"] == {"$ref": "#/$defs/Inner"}
    assert inner["additionalProperties"] is False
    assert about["names"] == {"items": {"type": "string"}, "title": "Names", "type": "array"}
    assert about["current"]["anyOf"][0] == {"items": {"type": "number"}, "type": "array"}


def test_what_asdict_makes_of_the_dataclass_is_such_a_part() -> None:
    part = TypeAdapter(Annotated[Outer, AsDict()])
    made = asdict(Outer(parts=(Inner(name="a"),), sizes={"a": 1, "b": None}))
    part.validate_python(made)
    with pytest.raises(ValidationError):
        part.validate_python({**made, "surprise": 1})
    with pytest.raises(ValidationError):
        part.validate_python({**made, "count": -1})
