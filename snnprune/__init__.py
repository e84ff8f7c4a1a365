"""snnprune: prune trained spiking neural networks, with the evidence.

In a notebook: `trace` a module, `calibrate` it, `score` its weights, `prune`, `evaluate`; `shrink`
a module of yours to the smaller layers of a file that `prune --structure channels` wrote.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snnprune.version import __version__

if TYPE_CHECKING:
    from snnprune.calibration.calibrate import calibrate
    from snnprune.criteria.criterion import criterion
    from snnprune.evaluation import evaluate
    from snnprune.network.trace import trace
    from snnprune.pruning import prune
    from snnprune.scoring import score
    from snnprune.structure.shrinking import shrink

HOME = {
    "calibrate": "snnprune.calibration",
    "criterion": "snnprune.criteria",
    "evaluate": "snnprune.evaluation",
    "prune": "snnprune.pruning",
    "score": "snnprune.scoring",
    "shrink": "snnprune.structure.shrinking",
    "trace": "snnprune.network",
}


def __getattr__(name: str) -> Any:
    # on first use: `snnprune --help` must not wait for torch
    if name in HOME:
        return getattr(import_module(HOME[name]), name)
    raise AttributeError(f"module 'snnprune' has no attribute {name!r}")


__all__ = [
    "__version__",
    "calibrate",
    "criterion",
    "evaluate",
    "prune",
    "score",
    "shrink",
    "trace",
]
