"""Tuning of what is left by surrogate gradients, while the masks grow to what was asked for.

And what a step of it takes, found out on a few samples before it is decided on.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from snnprune.data.batches import Batches, copy_batch
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import device_of
from snnprune.graph.network import Layer, Network, find_bias_key
from snnprune.graph.state import replace_tensors
from snnprune.masks import Masks, RowBounds, select_highest, select_in_rows
from snnprune.measure.evaluation import check_labels
from snnprune.measure.gradient_passes import SurrogateGradients, enable_gradients, require_gradient
from snnprune.pruning.repair import Pruned, TuneOutcome, silence
from snnprune.pruning.repair.batchnorm import (
    BatchNormForm,
    find_batchnorms,
    match,
    measure_dense_norms,
)
from snnprune.pruning.repair.tuning_images import (
    BATCH,
    FLIP,
    SHIFTS,
    HeldSamples,
    Piece,
    hold_samples,
    iter_batches,
    iter_endlessly,
)
from snnprune.runtime import seed_draws

RISE = 0.1  # of all steps: the learning rate rises
TEMPERATURE = 0.5  # in standard deviations of the dense network's logits
LARGEST = 0.4  # of the root mean square of a layer's dense weights: its learning rate
EVERY = 8  # steps between two cuts
CUTTING = 0.6  # of all steps: after them the masks hold


def tune(pruned: Pruned) -> Masks:
    """Bring the network's outputs near those of the dense network while weights go one by one.

    Adam on the kept weights, the biases and the scales of BatchNorms, its rate rising to its peak
    and falling to 0 (Smith and Topin 2018, arXiv 1708.07120). Every 8 steps of the first 60 % each
    layer gives up its smallest weights, as many as the cubic schedule of Zhu and Gupta 2017 (arXiv
    1710.01878) asks for between the number that it has and `pruned.counts`. The loss is the
    divergence of the softmax of the logits from the dense network's, at a temperature that asks
    for the whole order of the classes; no label is read, unless the settings ask for it.

    Raises:
        InputError: no gradient reaches the weights, there is no batch of two samples, or labels
            are to be used and there are none.
        NonFiniteError: the loss is NaN or infinite.
    """
    network, settings = pruned.network, pruned.tuning
    batches = pruned.batches if pruned.tuning_batches is None else pruned.tuning_batches
    held = hold_samples(network, batches)
    norms = measure_dense_norms(pruned)
    form = BatchNormForm(network.module, norms)
    with enable_gradients(network), _request_gradients(pruned), form.tune_affine():
        tuner = _Tuner(pruned, form)
        if held is not None and not settings.use_labels and SHIFTS not in settings.augment:
            tuner.answers = tuner.collect_answers(held)
        pieces = iter_endlessly(network, batches, held, augment=settings.augment, seed=pruned.seed)
        steps = range(settings.steps)
        for number in pruned.progress.track(steps, label="tuning", total=len(steps)):
            with seed_draws(pruned.seed, "tune", number, device=device_of(network.module)):
                tuner.step(next(pieces))
    match(pruned, norms)
    pruned.tell(tuner.describe(None if held is None else len(held)))
    return tuner.growth.masks


def list_tuned_keys(network: Network, masks: Masks) -> list[str]:
    """The keys of what is tuned: pruned weights, their biases, scale and shift of BatchNorms."""
    biases = [find_bias_key(network, key) for key in masks]
    norms = [variance.removesuffix("running_var") for variance in find_batchnorms(network.module)]
    affine = [f"{norm}{kind}" for norm in norms for kind in ("weight", "bias")]
    own = dict(network.module.named_parameters(remove_duplicate=False))
    return [key for key in (*masks, *filter(None, biases), *affine) if key in own]


@contextlib.contextmanager
def _request_gradients(pruned: Pruned) -> Iterator[None]:
    """Gradients of what is tuned and nothing else; each `.grad` is as it was afterwards."""
    parameters = dict(pruned.network.module.named_parameters(remove_duplicate=False))
    before = [(parameter, parameter.grad) for parameter in parameters.values()]
    keys = list_tuned_keys(pruned.network, pruned.masks)
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
            parameter.grad = None
        for key in keys:
            parameters[key].requires_grad_(True)
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


class MaskGrowth:
    """Masks that grow step by step from what is kept now to `counts` of each weight."""

    def __init__(
        self,
        masks: Masks,
        counts: Mapping[str, int],
        steps: int,
        *,
        rows: Mapping[str, RowBounds] | None = None,
        layers: Mapping[str, Layer] | None = None,
    ) -> None:
        """`steps` is the number of all steps, of which the first `CUTTING` cut.

        `rows` bound what stays of the output channels of a weight, which its layer tells.
        """
        self.rows, self.layers = rows or {}, layers or {}
        self.masks = dict(masks)
        self.first = {key: int(mask.sum()) for key, mask in masks.items()}
        self.counts = {key: counts.get(key, kept) for key, kept in self.first.items()}
        self.steps = max(1, int(CUTTING * steps))

    def count(self, key: str, step: int) -> int:
        """Of the weights of a layer that are kept after a step, from 1."""
        left = self._compute_rest(step)
        last = self.counts[key]
        return round(last + (self.first[key] - last) * left)

    def grow(self, step: int, weight_of: Callable[[str], Tensor]) -> None:
        """After a step, let each layer's smallest weights go where it is time for it."""
        if step > self.steps or (step % EVERY and step != self.steps):
            return
        for key, mask in self.masks.items():
            count = self.count(key, step)
            if count < int(mask.sum()) or key in self.rows:
                size = weight_of(key).detach().abs().float().cpu()
                self.masks[key] = self._choose_kept(key, size, count, step)

    def _choose_kept(self, key: str, size: Tensor, count: int, step: int) -> Tensor:
        """The mask of the `count` largest weights that are kept now, within bounds of channels."""
        mask = self.masks[key]
        if key not in self.rows:
            sizes = size.masked_fill(~mask, -1.0)
            return select_highest(sizes.flatten(), count).view(mask.shape)
        layer, bounds = self.layers[key], self.rows[key]
        alive = layer.weight_of(size.masked_fill(~mask, -torch.inf))
        bounds = bounds.ease(alive[0].numel(), self._compute_rest(step))
        chosen = select_in_rows(alive.flatten(1), count, bounds)
        return layer.parameter_of(chosen.view(alive.shape))

    def _compute_rest(self, step: int) -> float:
        """The share of what is to go that is still there after a step, in [0, 1]."""
        return (1 - min(1.0, step / self.steps)) ** 3


class _Tuner:
    """The optimizer and what it works on."""

    def __init__(self, pruned: Pruned, form: BatchNormForm) -> None:
        self.pruned, self.form = pruned, form
        self.network, self.module = pruned.network, pruned.network.module
        settings = pruned.tuning
        keys = list_tuned_keys(self.network, pruned.masks)
        self.growth = MaskGrowth(
            pruned.masks,
            pruned.counts,
            settings.steps,
            rows=pruned.rows,
            layers=self.network.layers,
        )
        self.losses: list[float] = []
        self.temperature: float | None = None
        self.answers: Tensor | None = None
        """Of the dense network, where they can be kept."""
        groups = [self._make_group(key, settings.learning_rate) for key in keys]
        self.optimizer = Adam(groups)
        total = max(settings.steps, 3)  # torch's schedule needs two steps to rise and one to fall
        self.schedule = OneCycleLR(
            self.optimizer,
            [group["lr"] for group in groups],
            total_steps=total,
            pct_start=max(RISE, 2 / total),
        )

    def _make_group(self, key: str, rate: float) -> dict[str, Any]:
        """What is tuned under a key, and its rate: weights that are small are moved less far."""
        parameter = self.module.get_parameter(key)
        if key in self.pruned.masks:
            size = float(self.pruned.dense[key].double().square().mean().sqrt())
            rate = min(rate, LARGEST * size) if size > 0 else rate
        return {"params": [parameter], "lr": rate}

    def step(self, piece: Piece) -> None:
        """One step on some samples, then fewer weights where it is time for it."""
        loss = self._compute_loss(piece)
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            raise NonFiniteError("tuning left the finite numbers", hint="choose another --repair")
        require_gradient(loss)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.growth.grow(len(self.losses), self.module.get_parameter)
        with torch.no_grad():
            for key, mask in self.growth.masks.items():
                weight = self.module.get_parameter(key)
                weight.mul_(mask.to(weight.device))
        silence(self.module, self.pruned.silenced)

    def describe(self, images: int | None) -> TuneOutcome:
        """What was done so far, on so many images."""
        settings, growth, losses = self.pruned.tuning, self.growth, self.losses
        eighth = max(1, len(losses) // 8)
        goal = min(growth.steps, len(losses) - eighth)
        return TuneOutcome(
            steps=len(losses),
            images=images,
            learning_rate=settings.learning_rate,
            use_labels=settings.use_labels,
            surrogate=settings.surrogate,
            augment=settings.augment,
            temperature=self.temperature,
            kept_before=sum(growth.first.values()),
            kept=sum(int(mask.sum()) for mask in growth.masks.values()),
            loss_at_first=fmean(losses[:eighth]),
            loss_at_goal=fmean(losses[goal : goal + eighth]),
            loss_at_last=fmean(losses[-eighth:]),
        )

    @torch.no_grad()
    def collect_answers(self, held: HeldSamples) -> Tensor:
        """The dense network's logits (N, classes); (2 N, classes) where images are mirrored."""
        count = len(held) * (2 if FLIP in self.pruned.tuning.augment else 1)
        found, device = [], device_of(self.module)
        with replace_tensors(self.module, self.pruned.dense):
            for number, places in enumerate(torch.arange(count).split(2 * BATCH)):
                with seed_draws(self.pruned.seed, "tune", "answers", number, device=device):
                    found.append(self._compute_logits(held.take(places), len(places)))
        return torch.cat(found)

    def _compute_loss(self, piece: Piece) -> Tensor:
        wanted = None if self.pruned.tuning.use_labels else self._find_answers(piece)
        surrogate = SurrogateGradients() if self.pruned.tuning.surrogate else nullcontext()
        with self.form.normalise_by_batch(), surrogate:
            logits = self._compute_logits(piece.x, piece.samples)
        if wanted is None:
            if piece.y is None:
                raise InputError("there are no labels to tune by", field="--use-labels")
            return functional.cross_entropy(logits, check_labels(piece.y, logits))
        if self.temperature is None:
            self.temperature = TEMPERATURE * measure_spread(wanted)
        return compute_divergence(logits, wanted, self.temperature)

    @torch.no_grad()
    def _find_answers(self, piece: Piece) -> Tensor:
        """The dense network's logits of some samples, (N, classes)."""
        if self.answers is not None and piece.places is not None:
            return self.answers[piece.places.to(self.answers.device)]
        with replace_tensors(self.module, self.pruned.dense):
            return self._compute_logits(copy_batch(piece.x), piece.samples)

    def _compute_logits(self, x: Any, samples: int) -> Tensor:
        """Mean over time, (N, classes)."""
        with self.network.reset_between_batches():
            return self.network.new_reader()(self.network.run(x), samples).mean(0)


def measure_spread(logits: Tensor) -> float:
    """The standard deviation of logits (N, classes) between the classes of a sample; 1 if none.

    In its unit a temperature means the same for sums and means over any number of time steps.
    """
    spread = float((logits - logits.mean(1, keepdim=True)).square().mean().sqrt())
    return spread if spread > 0 and math.isfinite(spread) else 1.0


def compute_divergence(made: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """t^2 KL(wanted || made) of softmax(logits / t), mean over samples, in nats."""
    log_q, log_p = ((logits / temperature).log_softmax(1) for logits in (made, wanted))
    apart = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return temperature**2 * apart


FEW = 8  # samples that the cost of a step is found out on


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Of a forward and a backward pass over the samples of one step."""

    multiply_adds: int
    """Of convolutions and products of matrices."""
    unreached: tuple[str, ...] = ()
    """Weights that no gradient reaches, by key."""
    surrogate: bool = False
    """Whether comparisons had a gradient of snnprune's own."""


def measure_step(network: Network, batches: Batches) -> StepCost:
    """Run a few samples forward and back; no gradient and no state is left behind.

    Where no gradient reaches some weights, as spikes have none, it is tried again with comparisons
    that have one of snnprune's own.

    Raises:
        InputError: there are no samples, or the network cannot be differentiated.
    """
    try:
        plain = _measure_step(network, batches, surrogate=False)
        if not plain.unreached:
            return plain
    except InputError:
        plain = None
    helped = _measure_step(network, batches, surrogate=True)
    if plain is not None and len(helped.unreached) == len(plain.unreached):
        return plain
    return helped


def _measure_step(network: Network, batches: Batches, *, surrogate: bool) -> StepCost:
    """The same with comparisons as they are, or with a gradient.

    Raises:
        InputError: there are no samples, or the network cannot be differentiated.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it imports triton, 0.1 GB

    piece = _take_few(network, batches)
    counter = FlopCounterMode(display=False)
    with (
        enable_gradients(network) as weights,
        network.reset_between_batches(),
        seed_draws(0, "tune", "cost", device=device_of(network.module)),
        counter,
    ):
        with SurrogateGradients() if surrogate else nullcontext():
            logits = network.new_reader()(network.run(copy_batch(piece.x)), piece.samples).mean(0)
        require_gradient(logits)
        try:
            found = torch.autograd.grad(
                logits.logsumexp(1).sum(), list(weights.values()), allow_unused=True
            )
        except RuntimeError as error:
            raise InputError(
                f"no gradient can be had: {str(error).splitlines()[0]}", field="--model"
            ) from error
    unreached = (key for key, slope in zip(weights, found, strict=True) if slope is None)
    done = counter.get_total_flops() // 2
    return StepCost(
        multiply_adds=done * BATCH // piece.samples,
        unreached=tuple(unreached),
        surrogate=surrogate,
    )


def _take_few(network: Network, batches: Batches) -> Piece:
    """The first samples; a whole batch where they cannot be taken out of it."""
    for piece in iter_batches(network, batches, ("cost",), size=FEW):
        return piece
    raise InputError("holds no samples", field="--data")
