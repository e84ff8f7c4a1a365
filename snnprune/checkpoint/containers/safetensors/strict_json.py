"""JSON from a stranger."""

import json
from typing import Any


class MalformedJsonError(Exception):
    """The text is not JSON that means one thing; its message reads on from `the header ...`."""


def parse(data: bytes) -> Any:
    """The value that `data` spells, in UTF-8 and with no name twice in one object.

    Raises:
        MalformedJsonError: it does not spell one.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise MalformedJsonError("starts with a byte order mark")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
        if rb"\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise MalformedJsonError("is not UTF-8") from None
    except UnicodeEncodeError:
        raise MalformedJsonError("holds half a surrogate pair") from None
    except RecursionError:
        raise MalformedJsonError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise MalformedJsonError(f"is not JSON: {error.msg} (character {error.pos})") from None
    except ValueError:  # what Python says to an integer of thousands of digits
        raise MalformedJsonError("holds a number of too many digits") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise MalformedJsonError(f"has the name {name!r} twice")
        value[name] = item
    return value
