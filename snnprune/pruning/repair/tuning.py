"""Tuning of what is left by surrogate gradients, towards the dense network's outputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from snnprune.data.batches import copy_batch
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import device_of
from snnprune.graph.making import replace_tensors
from snnprune.graph.network import Network
from snnprune.masks import Masks
from snnprune.measure.gradients.passes import enable_gradients, require_gradient
from snnprune.measure.second_moments.gram import find_bias_key
from snnprune.pruning.repair.batchnorm import (
    BatchNormForm,
    find_batchnorms,
    match,
    measure_dense_norms,
)
from snnprune.pruning.repair.pruned import Pruned, silence
from snnprune.runtime import make_generator, seed_draws

EPOCHS, LEARNING_RATE, TEMPERATURE = 10, 3e-3, 8.0
AT_ONCE = 64  # samples of a step; a calibration batch may hold several


def tune(pruned: Pruned) -> Masks:
    """Bring the network's outputs near those of the dense network, on the calibration images.

    Adam on the kept weights, the biases and the scales of BatchNorms, 10 epochs, its rate rising to
    3e-3 and falling to 0 (Smith and Topin 2018, arXiv 1708.07120). The loss is the divergence of
    the softmax of the logits, summed over time and divided by 8, from the dense network's: so high
    a temperature asks for the whole order of the classes, and few images are not learnt by heart.
    No label is read.

    Raises:
        InputError: no gradient reaches the weights, or there is no batch of two samples.
        NonFiniteError: the loss is NaN or infinite.
    """
    norms = measure_dense_norms(pruned)
    form = BatchNormForm(pruned.network.module, norms)
    with enable_gradients(pruned.network), _request_gradients(pruned), form.tune_affine():
        tuning = _Tuner(pruned, form)
        for epoch in pruned.progress.track(range(EPOCHS), label="tuning", total=EPOCHS):
            for number, (x, samples) in enumerate(_iter_pieces(pruned, epoch)):
                device = device_of(pruned.network.module)
                with seed_draws(pruned.seed, "tune", epoch, number, device=device):
                    tuning.step(x, samples)
    match(pruned, norms)
    return pruned.masks


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


class _Tuner:
    """The optimizer and what it works on."""

    def __init__(self, pruned: Pruned, form: BatchNormForm) -> None:
        self.form = form
        self.pruned, self.module = pruned, pruned.network.module
        parameters = [
            self.module.get_parameter(key) for key in list_tuned_keys(pruned.network, pruned.masks)
        ]
        self.masks = [
            (weight := self.module.get_parameter(key), mask.to(weight.device))
            for key, mask in pruned.masks.items()
        ]
        steps = EPOCHS * sum(1 for _ in _iter_pieces(pruned, 0))
        if not steps:
            raise InputError("no batch of two samples or more to tune on", field="--data")
        self.optimizer = Adam(parameters, lr=LEARNING_RATE)
        rise = max(0.1, 2 / steps)  # torch's schedule needs two steps to rise
        self.schedule = OneCycleLR(self.optimizer, LEARNING_RATE, total_steps=steps, pct_start=rise)

    def step(self, x: Any, samples: int) -> None:
        """One step on the images `x`."""
        with torch.no_grad(), replace_tensors(self.module, self.pruned.dense):
            wanted = self._compute_logits(copy_batch(x), samples)
        with self.form.normalise_by_batch():
            loss = _compute_divergence(self._compute_logits(x, samples), wanted)
        if not math.isfinite(float(loss.detach())):
            raise NonFiniteError("tuning left the finite numbers", hint="choose another --repair")
        require_gradient(loss)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            for weight, mask in self.masks:
                weight.mul_(mask)
        silence(self.module, self.pruned.silenced)

    def _compute_logits(self, x: Any, samples: int) -> Tensor:
        """Summed over time, (N, classes)."""
        network = self.pruned.network
        with network.reset_between_batches():
            return network.new_reader()(network.run(x), samples).sum(0)


def _compute_divergence(made: Tensor, wanted: Tensor) -> Tensor:
    """T^2 KL(wanted || made) of softmax(logits / T), mean over samples, in nats."""
    log_q, log_p = ((logits / TEMPERATURE).log_softmax(1) for logits in (made, wanted))
    apart = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return TEMPERATURE**2 * apart


def _iter_pieces(pruned: Pruned, epoch: int) -> Iterator[tuple[Any, int]]:
    """The calibration batches, each mixed and cut into pieces, with their numbers of samples.

    Which parts of a batch of another kind than x have samples is not known: it stays whole.
    """
    network = pruned.network
    least = 2 if find_batchnorms(network.module) else 1  # one sample may have no variance
    for number, (x, y) in enumerate(network.feed(pruned.batches)):
        samples = network.count_samples(x, y)
        if not isinstance(x, Tensor):
            yield from [(x, samples)] * (samples >= least)
            continue
        axis = network.sample_axis
        if axis is None and x.dim() > 1 and len(x) == x.shape[1] == samples > 1:
            yield x, samples  # which is time is not to be seen
            continue
        if axis is None:
            axis = 0 if len(x) == samples else 1  # events have time first
        drawn = make_generator(pruned.seed, "tune", epoch, number)
        for places in torch.randperm(samples, generator=drawn).split(AT_ONCE):
            if len(places) >= least:
                yield x.index_select(axis, places.to(x.device)), len(places)
