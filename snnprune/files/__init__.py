"""Writing files whole or not at all, alone or together, and the hash of what was read."""

from snnprune.files.failing import as_output_error
from snnprune.files.free import require_apart, require_free, require_writable_folder
from snnprune.files.opened import held, names_in, not_ours, open_folder, opened_in, status_in
from snnprune.files.staging import sweep
from snnprune.files.sums import sums_in, sums_of
from snnprune.files.together import replacing, together
from snnprune.files.writing import as_json, sha256_of, write_json, write_text

__all__ = [
    "as_json",
    "as_output_error",
    "held",
    "names_in",
    "not_ours",
    "open_folder",
    "opened_in",
    "replacing",
    "require_apart",
    "require_free",
    "require_writable_folder",
    "sha256_of",
    "status_in",
    "sums_in",
    "sums_of",
    "sweep",
    "together",
    "write_json",
    "write_text",
]
