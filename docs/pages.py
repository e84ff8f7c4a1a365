"""Pages that scripts write: `python docs/make_X.py` writes, `--check` fails where one is stale."""

import sys
from pathlib import Path

from snnprune.files.writing import write_text


def written(page: Path, text: str, script: str, arguments: list[str]) -> int:
    """Write the page, or with `--check` say whether it is what would be written; an exit code."""
    if "--check" not in arguments:
        write_text(page, text)
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{page.name} is stale: run python docs/{script}", file=sys.stderr)
    return 1
