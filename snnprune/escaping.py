"""The one place where text from a file becomes text that is safe to show."""

import unicodedata

# Control, format (bidi overrides, zero width), surrogate, private and unassigned characters, and
# the line and paragraph separators: none of them may reach a terminal or a page.
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, limit: int = 400) -> str:
    """`text` on one line, every hidden character as an escape, cut to `limit` characters."""
    shown = "".join(_escaped(character) for character in text[:limit])
    return shown if len(text) <= limit else f"{shown}... ({len(text)} characters)"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
