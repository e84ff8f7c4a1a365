"""Gates on the summary page of a GitHub Actions job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from snnprune.errors.text import format_row, format_table, make_printable
from snnprune.files.together import replace_file
from snnprune.report.gates.gate import Verdict


def write_junit(path: Path, command: str, verdicts: Mapping[str, Sequence[Verdict]]) -> None:
    """One suite per checkpoint, by its name, with a test case per gate.

    Raises:
        OutputError: `path` cannot be written.
    """
    root = ElementTree.Element("testsuites", name=f"snnprune {command}")
    for name, found in verdicts.items():
        _add_suite(root, make_printable(name), found)
    tree = ElementTree.ElementTree(root)
    ElementTree.indent(tree)
    with replace_file(path) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)


def _add_suite(root: ElementTree.Element, name: str, verdicts: Sequence[Verdict]) -> None:
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(verdicts)),
        failures=str(sum(one.met is False for one in verdicts)),
        errors=str(sum(one.met is None for one in verdicts)),
    )
    for one in verdicts:
        title = make_printable(f"{one.gate} {one.limit}")
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=title)
        if one.met is not True:
            kind = "failure" if one.met is False else "error"
            ElementTree.SubElement(case, kind, message=make_printable(one.found), type=one.gate)
        ElementTree.SubElement(case, "system-out").text = make_printable(one.found)


VARIABLE = "GITHUB_STEP_SUMMARY"
SIGNS = {True: "✅ met", False: "❌ not met", None: "⚠️ not judged"}


def append_step_summary(command: str, verdicts: Mapping[str, Sequence[Verdict]]) -> str | None:
    """Append a table per checkpoint where the variable names a file; why that failed, else None."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    text = "\n".join(_format_section(command, name, found) for name, found in verdicts.items())
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        return f"{VARIABLE} ({path}) cannot be written: {error.strerror}"
    return None


def _format_section(command: str, name: str, verdicts: Sequence[Verdict]) -> str:
    body = [(one.gate, one.limit, one.found, SIGNS[one.met]) for one in verdicts]
    lines = format_table(("gate", "limit", "found", ""), body)
    return f"### snnprune {command}: {format_row([make_printable(name)])}\n\n{lines}\n"
