"""What plain text means in YAML 1.2 (core schema): `1e-3` is a number, `no` and `1:30` are text."""

import re

MAX_DIGITS = 100  # Python takes quadratic time for the digits of an int, or raises

INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
NULL = ("", "~", "null", "Null", "NULL")
TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")


def parse_plain_value(text: str) -> bool | int | float | str | None:
    """The value of unquoted `text`.

    Raises:
        ValueError: it is a number of more than `MAX_DIGITS` characters.
    """
    if text in NULL:
        return None
    if text in TRUE + FALSE:
        return text in TRUE
    if INTEGER.fullmatch(text):
        return _parse_integer(_shorten(text))
    if FLOAT.fullmatch(text):
        return _parse_float(_shorten(text))
    return text


def _shorten(number: str) -> str:
    if len(number) > MAX_DIGITS:
        raise ValueError(f"a number of {len(number)} characters is too long")
    return number


def _parse_integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _parse_float(text: str) -> float:
    return float(re.sub(r"\.(?=[a-z])", "", text.lower()))  # Python writes inf and nan undotted
