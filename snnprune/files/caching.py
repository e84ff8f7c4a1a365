"""Where what can be made or fetched again is kept."""

import os
import tempfile
from pathlib import Path


def find_cache_folder() -> Path:
    """`$SNNPRUNE_CACHE`, else snnprune's in the user's cache; it need not exist."""
    if chosen := os.environ.get("SNNPRUNE_CACHE"):
        return Path(chosen)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "snnprune"
    try:
        return Path.home() / ".cache" / "snnprune"
    except RuntimeError:  # neither HOME nor an entry in the password file, as in some containers
        return Path(tempfile.gettempdir()) / "snnprune"
