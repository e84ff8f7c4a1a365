"""What somebody may have meant."""

import difflib
import re
from collections.abc import Iterable


def share_meant(value: float) -> str:
    """What to do about a share that is outside its range: `did you mean 0.95?` of 95."""
    if 1 < value < 100:
        return f"did you mean {value / 100:g}?"
    return "a share is written as 0.95, not 95"


def percent_meant(text: str) -> str:
    """What to do about a share that is no number: `did you mean 0.9?` of 90%."""
    if re.fullmatch(r"[0-9]{1,2} ?%", text):
        return f"did you mean {int(text.rstrip(' %')) / 100:g}?"
    return "a share is written as 0.95"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?` where a known word is close to `word`, else `choose from ...`."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"choose from {', '.join(known)}" if known else "there are none"
