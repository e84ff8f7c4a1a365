"""Searching for sub-networks without training a weight (edge-popup).

Ramanujan et al. 2020, arXiv 1911.13299; section 5 of Yao et al. 2023, arXiv 2305.12148. Weights
are drawn once; every layer keeps those with the highest scores, and the scores alone are trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.data import DataSet
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.masks import Masks
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import SearchSection
from snnprune.report.curves import DENSE
from snnprune.runtime import SILENT, Progress
from snnprune.training import EDGE_POPUP, Round
from snnprune.training.edge_popup import Subnetwork, randomize_network, require_plain
from snnprune.training.fit import Position, resume_trainer
from snnprune.training.rounds import TrainingSequence
from snnprune.training.runs import NEVER, Run, StopSignal
from snnprune.training.runs.state import State, read_count, require_alike, take_up
from snnprune.training.setup import TrainingSetup, set_up
from snnprune.training.tickets import TicketResults, collect_tickets, require_epochs
from snnprune.training.weights import copy_to_cpu


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


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchedNetwork:
    """What a training came to, for the plain network."""

    tensors: Mapping[str, Tensor]
    """0 where a weight is masked."""
    masks: Masks
    """Empty for the dense network."""


class SearchRun(TrainingSequence):
    """A run of `search`: its trainings in order, and the network that they all begin with."""

    def __init__(self, setup: TrainingSetup) -> None:
        """Refuses what cannot be masked, before anything is trained.

        Raises:
            InputError: a weight cannot be masked.
        """
        assert setup.recipe.search is not None
        require_plain(setup.network)
        self.section: SearchSection = setup.recipe.search
        super().__init__(setup, list_search_rounds(self.section, setup.recipe.training.epochs))
        self.first: Mapping[str, Tensor] = copy_to_cpu(setup.module)
        self.state: State | None = None

    def resume(self) -> None:
        """Go to where the run's last state is; its tensors wait for the network to be masked."""
        self.state = self.setup.run.begin()
        if self.state is None:
            return
        with take_up(self.state) as state:
            self.number = read_count(state.position, "cell", most=len(self.rounds) - 1)
            epochs, steps = self.rounds[self.number].epochs, self.setup.steps_per_epoch
            self.at = Position.from_state(state.position["at"], epochs=epochs, steps=steps)
            require_epochs(self.setup.run.rows, self.at, self.rounds[self.number])
            require_alike(state.groups["first"], self.first)
            self.first = state.groups["first"]

    @contextlib.contextmanager
    def mask_network(self, round_: Round) -> Iterator[Subnetwork | None]:
        """The block in which the network is a random one under masks; None: it is itself.

        Every sparsity begins with the same weights, scores and batches.
        """
        self.setup.load(self.first)
        if round_.method == DENSE:
            self._prepare_optimizer(round_)
            yield None
            return
        with randomize_network(
            self.setup.network,
            weights=self.section.weights,
            kept=share_kept(round_.sparsity),
            seed=self.setup.recipe.seed,
        ) as network:
            self._prepare_optimizer(round_)
            yield network

    def read_network(self, network: Subnetwork | None) -> SearchedNetwork:
        """What is to be kept of the trained network."""
        with self.trainer.use_kept_weights():
            if network is None:
                return SearchedNetwork(tensors=copy_to_cpu(self.setup.module), masks={})
            masks = {key: mask.cpu() for key, mask in network.masks().items()}
            return SearchedNetwork(tensors=network.state_dict(), masks=masks)

    def measure_and_keep(self, round_: Round, found: SearchedNetwork) -> None:
        """Look at the test images once, with the plain network, and keep it."""
        run = self.setup.run
        self.setup.load(found.tensors)
        row = self._row(round_, found.masks, run.rows[-1]["validation_accuracy"])
        run.keep(round_.folder, found.tensors, found.masks)
        run.log({**row, "k": share_kept(round_.sparsity)})

    def _prepare_optimizer(self, round_: Round) -> None:
        """A fresh optimizer, or the one of the run that is taken up."""
        training = self.setup.recipe.training.model_copy(update={"epochs": round_.epochs})
        self.trainer = self.setup.trainer(training)
        if self.state is not None:
            with take_up(self.state) as state:
                resume_trainer(self.trainer, state.position, state.groups, epochs=round_.epochs)
            self.state = None

    def _key(self, _: Round) -> tuple[object, ...]:
        return ("search",)  # every sparsity draws the same

    def _groups(self) -> dict[str, Mapping[str, Tensor]]:
        return {"first": self.first}


def list_search_rounds(section: SearchSection, epochs: int) -> list[Round]:
    """The trainings of a run: the dense network if asked for, then one for each sparsity."""
    dense = Round(method=DENSE, round=0, sparsity=0.0, epochs=epochs, folder=DENSE, last=False)
    return [
        *([dense] if section.dense else []),
        *(
            Round(
                method=EDGE_POPUP,
                round=number,
                sparsity=sparsity,
                epochs=section.epochs or epochs,
                folder=f"sparsity-{sparsity}",
                last=number == len(section.sparsities),
            )
            for number, sparsity in enumerate(section.sparsities, start=1)
        ),
    ]


def share_kept(sparsity: float) -> float:
    """k = 1 - sparsity, in (0, 1], as one writes it: 0.1 for a sparsity of 0.9."""
    return round(1 - sparsity, 12)
