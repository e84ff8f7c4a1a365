"""The same weights in another file: smaller, plain, or for other programs."""

from snnprune.exporting.formats import FORMATS, Exported, Format
from snnprune.exporting.running import Running, first_calls
from snnprune.exporting.sizes import Sizes, sizes_of

__all__ = ["FORMATS", "Exported", "Format", "Running", "Sizes", "first_calls", "sizes_of"]
