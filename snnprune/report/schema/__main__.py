"""`python -m snnprune.report.schema` writes the JSON Schema beside this file anew."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from snnprune.report.schema import FILE
from snnprune.report.schema.reports import Report


def made() -> str:
    """The JSON Schema of the types."""
    found: dict[str, Any] = TypeAdapter(Report).json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What snnprune reports",
        **found,
    }
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(made(), encoding="utf-8")
