"""`python -m snnprune.jobs.reports` writes the JSON Schema in `snnprune.report.schema` anew."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from snnprune.jobs.reports.reports import Report
from snnprune.report import schema


def make_schema() -> str:
    """The JSON Schema of the types."""
    found: dict[str, Any] = TypeAdapter(Report).json_schema()
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What snnprune reports",
        **found,
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    Path(schema.__file__).with_name(schema.FILE).write_text(make_schema(), encoding="utf-8")
