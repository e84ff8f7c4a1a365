"""Searching for sub-networks without training a weight (edge-popup).

Ramanujan et al. 2020, arXiv 1911.13299; section 5 of Yao et al. 2023, arXiv 2305.12148. Weights
are drawn once; every layer keeps those with the highest scores, and the scores alone are trained.
"""

from __future__ import annotations

import torch

from snnprune.data.dataset import DataSet
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.recipe.methods import SearchSection
from snnprune.recipe.schema import Recipe
from snnprune.runtime import SILENT, Progress
from snnprune.training.runs.run import Run
from snnprune.training.runs.stopping import NEVER, StopSignal
from snnprune.training.searches import SearchRun
from snnprune.training.setup import set_up
from snnprune.training.tickets import TicketResults, collect_tickets


def search(
    recipe: Recipe,
    data: DataSet,
    *,
    device: torch.device,
    run: Run | None = None,
    stop: StopSignal = NEVER,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> TicketResults:
    """Find a sub-network for each sparsity of the recipe's section `search`, all from one draw.

    `run` keeps each as a model of the plain network's keys, with its masks. The test images are
    looked at once for each. On a CPU the result is the same to the bit after any interruption.

    Raises:
        InputError: the model cannot be had or masked, or the data cannot be trained on.
        NonFiniteError: the loss became NaN or infinite; the last state of `run` is a good one.
        StoppedError: `stop` became true, and the state was saved.
    """
    recipe = recipe.model_copy(update={"search": recipe.search or SearchSection()})
    setup = set_up(recipe, data, device=device, run=run, stop=stop, progress=progress, ranks=ranks)
    searches = SearchRun(setup)
    searches.resume()
    with progress.within("run", total=searches.steps, done=searches.steps_done):
        for round_ in searches.iter_left():
            with searches.mask_network(round_) as network:
                searches.train(round_)
                found = searches.read_network(network)
            searches.measure_and_keep(round_, found)
    return collect_tickets(setup.recipe, setup.run.rows)
