"""Parts of reports whose keys are the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from snnprune.quantities import Natural, Share
from snnprune.report.schema.as_dict import AsDict


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


def schema_of(how: AsDict) -> dict[str, Any]:
    return TypeAdapter(Annotated[Outer, how]).json_schema()


def test_every_field_is_a_required_key_and_there_are_no_others() -> None:
    found = schema_of(AsDict(name="Named"))
    assert found["title"] == "Named"
    assert "description" not in found
    assert found["additionalProperties"] is False
    names = ["count", "share", "pair", "parts", "sizes", "current"]
    assert found["required"] == list(found["properties"]) == names


def test_keys_that_are_no_fields_stand_where_they_are_put() -> None:
    how = AsDict(more={"whole": bool, "count": str}, before="pair", without=("current",))
    found = schema_of(how)
    assert list(found["properties"]) == ["count", "share", "whole", "pair", "parts", "sizes"]
    assert found["properties"]["count"]["type"] == "string"


def test_ranges_lists_and_inner_dataclasses_are_those_of_json() -> None:
    found = schema_of(AsDict())
    about, inner = found["properties"], found["$defs"]["Inner"]
    assert about["count"] == {"minimum": 0, "title": "Count", "type": "integer"}
    assert (about["pair"]["minItems"], about["pair"]["maxItems"]) == (2, 2)
    assert about["parts"]["items"] == {"$ref": "#/$defs/Inner"}
    assert inner["additionalProperties"] is False
    assert about["current"]["anyOf"][0] == {"items": {"type": "number"}, "type": "array"}


def test_what_asdict_makes_of_the_dataclass_is_such_a_part() -> None:
    part = TypeAdapter(Annotated[Outer, AsDict()])
    made = asdict(Outer(parts=(Inner(name="a"),), sizes={"a": 1, "b": None}))
    part.validate_python(made)
    with pytest.raises(ValidationError):
        part.validate_python({**made, "surprise": 1})
    with pytest.raises(ValidationError):
        part.validate_python({**made, "count": -1})
