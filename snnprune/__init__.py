"""snnprune: prune trained spiking neural networks, with the evidence.

In a notebook: `prune_model`, `score_model` and `evaluate_model` do what the commands do to a module
of yours; `hold_masks` keeps what was pruned at 0 while you train on, `MaskCallback` in Lightning.
Below them: `trace` a module, `calibrate` it, `score` its weights, `prune`, `evaluate`; `shrink`
makes a module as small as a file that `prune --structure channels` wrote.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from snnprune.runtime import __version__

if TYPE_CHECKING:
    from snnprune.api.calls import evaluate_model, prune_model, score_model
    from snnprune.graph.trace import trace
    from snnprune.measure.calibrate import calibrate
    from snnprune.measure.evaluation import evaluate
    from snnprune.pruning.criteria import criterion
    from snnprune.pruning.prune import prune
    from snnprune.pruning.score import score
    from snnprune.pruning.structure.compact import shrink
    from snnprune.training.holding import MaskCallback, hold_masks


HOME = {
    "MaskCallback": "snnprune.training.holding",
    "calibrate": "snnprune.measure.calibrate",
    "criterion": "snnprune.pruning.criteria",
    "evaluate": "snnprune.measure.evaluation",
    "evaluate_model": "snnprune.api.calls",
    "hold_masks": "snnprune.training.holding",
    "prune": "snnprune.pruning.prune",
    "prune_model": "snnprune.api.calls",
    "score": "snnprune.pruning.score",
    "score_model": "snnprune.api.calls",
    "shrink": "snnprune.pruning.structure.compact",
    "trace": "snnprune.graph.trace",
}


def __getattr__(name: str) -> Any:
    # on first use: `snnprune --help` must not wait for torch
    if name in HOME:
        return getattr(import_module(HOME[name]), name)
    raise AttributeError(f"module 'snnprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is to use; packages too, once they are imported."""
    parts = (name for name, value in globals().items() if isinstance(value, ModuleType))
    ours = (name for name in parts if f"{__name__}.{name}" in sys.modules)
    return sorted({*__all__, *ours, "__doc__", "__file__", "__path__"})


# documented imports of version 0.1, which work for one more release, with a DeprecationWarning
GRAPH = ("network", "trace", "hooks", "forward", "calls", "state", "weight_uses", "libraries")
MOVED: dict[str, tuple[str, ...]] = {
    "agreement": ("measure.agreement", "measure.agreement_pass"),
    "allocation": ("pruning.allocation",),
    "allocation.candidates": ("pruning.allocation",),
    "calibration": ("measure.calibration", "measure.calibrate"),
    "criteria": ("pruning.criteria",),
    "criteria.spiking": ("pruning.criteria.spiking", "pruning.criteria.weight"),
    "data.assembly": ("data.images",),
    "evaluation": ("measure.evaluation",),
    "jobs.subjects": (),
    "jobs.subjects.opening": ("jobs.targets.opening",),
    "jobs.subjects.options": ("jobs.targets.options",),
    "models.blocks": ("models.networks",),
    "models.dynamics": ("models.lif",),
    "network": tuple(f"graph.{name}" for name in GRAPH),
    "network.libraries": ("graph.libraries", "graph.libraries.library"),
    "network.readout": ("graph.forward",),
    "network.running": ("graph.forward",),
    "one_shot": ("pruning.oneshot",),
    "repair": ("pruning.repair",),
    "scoring": ("pruning.score",),
}
"""Where the names of an old module are now, as parts of snnprune."""
RENAMED = {"open_subject": "open_target", "SubjectOptions": "TargetOptions"}
"""What is called otherwise there."""


class MovedModules(MetaPathFinder, Loader):
    """Finds an old module, whose names are those of the new ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that was moved; None of any other."""
        del path, target  # the name says it all
        part = fullname.partition("snnprune.")[2]
        if part not in MOVED or not fullname.startswith("snnprune."):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and have the names looked up where they are now."""
        name = module.__name__
        homes = [f"snnprune.{home}" for home in MOVED[name.removeprefix("snnprune.")]]
        if homes:
            message = f"{name} is {' and '.join(homes)} now; the old name works for one release"
            warnings.warn(message, DeprecationWarning, stacklevel=2)

        def look_up(name: str) -> Any:
            for home in homes if not name.startswith("__") else ():
                found = getattr(import_module(home), RENAMED.get(name, name), None)
                if found is not None:
                    return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = look_up


sys.meta_path.append(MovedModules())


__all__ = [
    "MaskCallback",
    "__version__",
    "calibrate",
    "criterion",
    "evaluate",
    "evaluate_model",
    "hold_masks",
    "prune",
    "prune_model",
    "score",
    "score_model",
    "shrink",
    "trace",
]
