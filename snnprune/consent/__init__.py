"""Consent to code: a file alone makes none run, whoever wrote it.

Code that a recipe names runs if it stands on the command line too, with `--trust-recipe`, or where
a run of this user is continued in its own folder.
"""

from snnprune.consent.asking import as_flag, require_consent
from snnprune.consent.named import Named, code_in, told, typed_by
from snnprune.consent.records import Record, record_of, remember

__all__ = [
    "Named",
    "Record",
    "as_flag",
    "code_in",
    "record_of",
    "remember",
    "require_consent",
    "told",
    "typed_by",
]
