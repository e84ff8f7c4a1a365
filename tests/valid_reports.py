"""Reports against the JSON Schema that comes with the package."""

from __future__ import annotations

import functools
import json
from typing import Any

from jsonschema import Draft202012Validator


def assert_valid(report: dict[str, Any]) -> None:
    """A report is one of those that the JSON Schema knows."""
    validator = _validators()
    wanted = [one for one in validator if _is_about(one, report)]
    assert wanted, f"no schema for {report.get('command')}"
    faults = [list(one.iter_errors(report)) for one in wanted]
    best = min(faults, key=len)
    told = "\n".join(f"{fault.json_path}: {fault.message}"[:300] for fault in best)
    assert not best, f"{told}\na new key? run python -m snnprune.jobs.reports"


@functools.cache
def _validators() -> list[Draft202012Validator]:
    """One for each kind of report, so that a fault names its key."""
    # torch comes with it, and the process that hands out the tests does without
    from snnprune.report.schema import text

    schema = json.loads(text())
    kinds = schema.pop("anyOf")
    return [Draft202012Validator({**schema, **kind}) for kind in kinds]


def _is_about(validator: Draft202012Validator, report: dict[str, Any]) -> bool:
    schema: Any = validator.schema
    name = schema["$ref"].rpartition("/")[2]
    told = schema["$defs"][name]["properties"].get("command", {})
    return report.get("command") in (told.get("const"), *told.get("enum", ()))
