"""Iterative pruning with rewinding: Algorithm 1 of Yao et al. 2023, arXiv 2305.12148.

Round 0 trains the dense network for N epochs (`training.epochs`). Its beginning is the paper's
"train R epochs, save theta_rewind": `ImpRun` keeps the weights as the state of epoch R
(`imp.rewind_epoch`) is saved. Each later round ranks the weights of the network as trained, prunes,
goes back to those of epoch R, and trains N - R epochs, or `imp.round_epochs` where that is set.
"""

from __future__ import annotations

import torch

from snnprune.data import DataSet
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import ImpSection
from snnprune.runtime import SILENT, Progress
from snnprune.training.rounds import ImpRun
from snnprune.training.runs import NEVER, Run, StopSignal
from snnprune.training.setup import set_up
from snnprune.training.tickets import TicketResults, collect_tickets


def imp(
    recipe: Recipe,
    data: DataSet,
    *,
    device: torch.device,
    run: Run | None = None,
    stop: StopSignal = NEVER,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> TicketResults:
    """Find tickets by each method of the recipe's section `imp`, all from one dense network.

    `run` keeps a model and its masks for every round. The test images are looked at once a round.
    On a CPU the result is the same to the bit after any interruption.

    Raises:
        InputError: the model cannot be had or pruned, or the data cannot be trained on.
        NonFiniteError: the loss became NaN or infinite; the last state of `run` is a good one.
        StoppedError: `stop` became true, and the state was saved.
    """
    recipe = recipe.model_copy(update={"imp": recipe.imp or ImpSection()})
    setup = set_up(recipe, data, device=device, run=run, stop=stop, progress=progress, ranks=ranks)
    rounds = ImpRun(setup)
    resumed = rounds.resume()
    with progress.within("run", total=rounds.steps, done=rounds.steps_done):
        for round_ in rounds.iter_left():
            if not resumed:
                masks = rounds.choose_masks(round_)  # the paper's pruning; none in round 0
                rounds.rewind(round_)
                rounds.apply_masks_and_repair(round_, masks)
            rounds.train(round_)  # in round 0 this keeps the weights of epoch R on the way
            rounds.measure_and_keep(round_)
            resumed = False
    return collect_tickets(setup.recipe, setup.run.rows)
