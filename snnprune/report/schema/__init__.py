"""What a report may hold: types of its parts, and the JSON Schema of all reports.

`report.schema.json` beside this file is what `text` gives. `snnprune.jobs.reports` makes it of the
types; a test holds the two together.
"""

from importlib.resources import files

FILE = "report.schema.json"


def text() -> str:
    """The JSON Schema (draft 2020-12) of what `--json` prints and `report.json` holds."""
    return files(__name__).joinpath(FILE).read_text("utf-8")
