"""The report, the recipe and the pictures that `snnprune sensitivity` leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from snnprune.jobs.sensitivity.options import PICTURES
from snnprune.jobs.sensitivity.trials import Trial
from snnprune.notation import layer_name
from snnprune.one_shot import Plan
from snnprune.plots import plot_sensitivity
from snnprune.recipe.dumping import dump_settings
from snnprune.recipe.pruning import PruneRecipe, PruneSection

Rows = Mapping[str, Sequence[float | None]]


def about_trial(trial: Trial) -> dict[str, Any]:
    """A trial for the report."""
    chosen = [trial.agreement.spikes[name] for name in trial.behind]
    outputs, answers = trial.agreement.outputs, trial.agreement.answers
    return {
        "weight": trial.weight,
        "sparsity": trial.sparsity,
        "pruned": trial.pruned,
        "weights": trial.weights,
        "accuracy": trial.accuracy,
        "same_class": trial.same_class,
        "divergence": trial.divergence,
        "spike_agreement": trial.compute_spike_agreement(),
        "behind": list(trial.behind),
        "spikes_same": sum(sum(spikes.same) for spikes in chosen),
        "spikes_places": sum(sum(spikes.places) for spikes in chosen),
        "outputs": asdict(outputs) if outputs else None,
        "answers": asdict(answers) if answers else None,
    }


def by_layer(trials: Sequence[Trial], value: Callable[[Trial], float | None]) -> Rows:
    """A value of each trial, by layer in the order of the sparsities."""
    keys = dict.fromkeys(trial.weight for trial in trials)
    return {key: [value(trial) for trial in trials if trial.weight == key] for key in keys}


def fragment(
    plan: Plan, sparsity: float, counts: Mapping[str, int], sizes: Mapping[str, int]
) -> str:
    """The recipe of `prune` that prunes `counts` weights of each layer."""
    section = PruneSection(
        criterion=plan.criterion,
        repair=plan.repair,
        sparsity=sparsity,
        layers={key: shortest(count, sizes[key]) for key, count in counts.items()},
    )
    return dump_settings(PruneRecipe(prune=section).model_dump(exclude_none=True))


def shortest(count: int, size: int) -> float:
    """The sparsity of the fewest digits, four at least, that prunes `count` of `size` weights."""
    exact = count / size
    rounded = (round(exact, digits) for digits in range(4, 16))
    return next((one for one in rounded if one < 1 and round(one * size) == count), exact)


def draw(folder: Path, trials: Sequence[Trial], dense: float | None, conditions: str) -> None:
    """Draw what is lost by layer and sparsity.

    Raises:
        OutputError: a file cannot be written.
    """

    def lost(trial: Trial) -> float | None:
        accuracy = trial.accuracy
        return None if accuracy is None or dense is None else 100 * (dense - accuracy)

    def flipped(trial: Trial) -> float | None:
        same = trial.compute_spike_agreement()
        return None if same is None else 100 * (1 - same)

    measures: dict[str, Callable[[Trial], float | None]] = {
        "accuracy lost (points)": lost,
        "other class than dense (%)": lambda trial: 100 * (1 - trial.same_class),
        "other spikes behind the layer (%)": flipped,
    }
    plot_sensitivity(
        [folder / name for name in PICTURES],
        list(dict.fromkeys(trial.sparsity for trial in trials)),
        {title: _named(by_layer(trials, value)) for title, value in measures.items()},
        conditions,
    )


def _named(rows: Rows) -> Rows:
    return {layer_name(key): row for key, row in rows.items()}
