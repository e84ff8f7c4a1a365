"""The one place where text from a file becomes text that is safe to show."""

import json
import re
import unicodedata
from typing import Any

# Control, format (bidi overrides, zero width), surrogate, private and unassigned characters, and
# the line and paragraph separators: none of them may reach a terminal or a page.
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

COMMAND = re.compile(r"^(?P<blank>\s*):(?=:)|#(?=#\w*\[)")
"""What CI servers obey in a log: `::` at a line's begin, `##[` and `##name[` anywhere in it.

Always escaped, not only where a server says that it is one: logs are sent on.
"""


def printable(text: str, limit: int | None = 400) -> str:
    """`text` on one line that commands nothing, cut to `limit` characters.

    Every hidden character is an escape.
    """
    cut = text[:limit]
    shown = powerless("".join(map(_escaped, cut)))
    return shown if cut == text else f"{shown}... ({len(text)} characters)"


def powerless(line: str) -> str:
    """A line of a log without what a CI server would take for a command to it."""
    return COMMAND.sub(lambda found: f"{found['blank'] or ''}\\x{ord(found[0][-1]):02x}", line)


def visible(text: str) -> str:
    """`text` with its line ends, every other hidden character as an escape."""
    return "\n".join("".join(map(_escaped, line)) for line in text.split("\n"))


def as_json(report: Any) -> str:
    """One line of JSON, whose text commands nothing and is exactly that of `report` once read."""
    return COMMAND.sub(r"\\u0023", json.dumps(report))  # only in text is there a #


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
