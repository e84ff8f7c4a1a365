"""snnprune: prune trained spiking neural networks, with the evidence.

In a notebook: `trace` a module, `calibrate` it, `score` its weights, `prune`, `evaluate`; `shrink`
a module of yours to the smaller layers of a file that `prune --structure channels` wrote.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snnprune import moved as moved
from snnprune.version import __version__

if TYPE_CHECKING:
    from snnprune.graph.trace import trace
    from snnprune.measure.calibrate import calibrate
    from snnprune.measure.evaluation import evaluate
    from snnprune.pruning.criteria.criterion import criterion
    from snnprune.pruning.prune import prune
    from snnprune.pruning.score import score
    from snnprune.pruning.structure.compact import shrink


HOME = {
    "calibrate": "snnprune.measure.calibrate",
    "criterion": "snnprune.pruning.criteria.criterion",
    "evaluate": "snnprune.measure.evaluation",
    "prune": "snnprune.pruning.prune",
    "score": "snnprune.pruning.score",
    "shrink": "snnprune.pruning.structure.compact",
    "trace": "snnprune.graph.trace",
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
