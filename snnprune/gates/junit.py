"""Gates as a JUnit file, which CI servers show as tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from snnprune.escaping import printable
from snnprune.files import replacing
from snnprune.gates.gate import Verdict


def write_junit(path: Path, command: str, verdicts: Mapping[str, Sequence[Verdict]]) -> None:
    """One suite per checkpoint, by its name, with a test case per gate.

    Raises:
        OutputError: `path` cannot be written.
    """
    root = ElementTree.Element("testsuites", name=f"snnprune {command}")
    for name, found in verdicts.items():
        _add_suite(root, printable(name), found)
    tree = ElementTree.ElementTree(root)
    ElementTree.indent(tree)
    with replacing(path) as temporary:
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
        title = printable(f"{one.gate} {one.limit}")
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=title)
        if one.met is not True:
            kind = "failure" if one.met is False else "error"
            ElementTree.SubElement(case, kind, message=printable(one.found), type=one.gate)
        ElementTree.SubElement(case, "system-out").text = printable(one.found)
