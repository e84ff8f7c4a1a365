"""Several processes that work on one thing: started by torchrun, each on a device of its own."""

from snnprune.distributed.gradients import Replicated
from snnprune.distributed.joining import joined
from snnprune.distributed.norms import synchronised
from snnprune.distributed.ranks import ALONE, Part, Ranks

__all__ = ["ALONE", "Part", "Ranks", "Replicated", "joined", "synchronised"]
