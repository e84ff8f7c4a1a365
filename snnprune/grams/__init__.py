"""Second moments of what enters layers, and what least squares and OBS make of them."""

from snnprune.grams.collecting import Grams, bias_key, is_free
from snnprune.grams.elimination import damping, inverse_of, losses
from snnprune.grams.gram import Gram, GramSum
from snnprune.grams.least_squares import fitted
from snnprune.grams.passes import Rows, Usage, run_to, usage_of
from snnprune.grams.patches import currents, patches

__all__ = [
    "Gram",
    "GramSum",
    "Grams",
    "Rows",
    "Usage",
    "bias_key",
    "currents",
    "damping",
    "fitted",
    "inverse_of",
    "is_free",
    "losses",
    "patches",
    "run_to",
    "usage_of",
]
