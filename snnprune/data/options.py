"""What the command line may say about data beside its name."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where data sets lie and how they are cut; every opener takes all of it."""

    root: Path | None = None
    """The folder of the downloaded sets; None: `$SNNPRUNE_DATA` or the user's cache."""
    download: bool = False
    """Whether a set that is not there may be fetched."""
    validation: float = 0.0
    """The part of the training images that is set aside, in [0, 1)."""
    hold_out: float = 0.0
    """The part that is set aside where nothing else is said and there are no test images."""
    seed: int = 0
    """Chooses the images that are set aside."""
    size: int | None = None
    """The side of the pictures that the model takes, in pixels; None: as they are."""
    channels: int | None = None
    """The channels that the model takes; None: as they are."""
    whole: bool = False
    """Whether a function of the user's runs them, which may take batches of any kind."""

    def part(self, *, tested: bool) -> float:
        """The part that is set aside, where there are test images or not."""
        return self.validation or (0.0 if tested else self.hold_out)

    def find_folder(self) -> Path:
        """The folder of the downloaded sets, which need not exist."""
        return self.root or _default_root()


def _default_root() -> Path:
    if chosen := os.environ.get("SNNPRUNE_DATA"):
        return Path(chosen)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "snnprune" / "data"
    try:
        return Path.home() / ".cache" / "snnprune" / "data"
    except RuntimeError:  # neither HOME nor an entry in the password file, as in some containers
        return Path(tempfile.gettempdir()) / "snnprune" / "data"
