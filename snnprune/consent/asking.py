"""Refusing code that only a file names."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from snnprune.callables import require_not_standard
from snnprune.consent.named import Named, told
from snnprune.consent.records import Record, sha256_of_code
from snnprune.errors import InputError

Typed = Callable[[Named], str]


def as_setting(named: Named) -> str:
    """How the code is named on a command line that runs a recipe."""
    return f"--set {shlex.quote(f'{named.field}={named.reference}')}"


def as_flag(named: Named) -> str:
    """How it is named on that of `prune`."""
    return f"--{named.path[-1]} {shlex.quote(named.reference)}"


def require_consent(
    code: Sequence[Named],
    *,
    file: object,
    typed: Collection[str] = (),
    trusted: bool = False,
    record: Record = MappingProxyType({}),
    typed_as: Typed = as_setting,
) -> None:
    """Refuse `code` of the recipe `file` that the user has not agreed to; none is imported.

    Args:
        code: what the recipe names.
        file: what errors call the recipe.
        typed: the references that stand on the command line too.
        trusted: whether `--trust-recipe` was given.
        record: what this user's run in the same folder ran.
        typed_as: how one is typed instead.

    Raises:
        InputError: there is some, or it is of Python's standard library.
    """
    for named in code:
        require_not_standard(named.reference, field=named.field, file=file)
    asked = [named for named in code if not trusted and named.reference not in typed]
    asked = [named for named in asked if not _ran_before(named, record)]
    if asked:
        raise InputError(
            told(asked) + _since(asked, record),
            file=file,
            field=asked[0].field,
            hint=_hint(asked, typed_as),
        )


def _ran_before(named: Named, record: Mapping[str, str]) -> bool:
    before = record.get(named.reference)
    return before is not None and before == sha256_of_code(named.reference)


def _since(asked: Sequence[Named], record: Record) -> str:
    changed = any(named.reference in record for named in asked)
    return ", changed since the run began" if changed else ""


def _hint(asked: Sequence[Named], typed_as: Typed) -> str:
    one = len(asked) == 1 and asked[0].alone
    instead = f", or name it yourself: {typed_as(asked[0])}" if one else ""
    return f"if you trust it, run it with --trust-recipe{instead}"
