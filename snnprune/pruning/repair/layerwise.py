"""Repairs that go through the layers in order, each on the inputs that the pruned network has.

What the layers give in the dense network is recorded for as many at once as fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from snnprune.graph.call_graph import CallGraph
from snnprune.graph.calls import LayerCall
from snnprune.graph.network import find_bias_key
from snnprune.graph.replay import PassEnd, Replay, Run
from snnprune.graph.state import replace_tensors, use_eval_mode
from snnprune.masks import Masks, select_in_rows
from snnprune.measure.layer_inputs import (
    RowSampler,
    Usage,
    compute_currents,
    count_usage,
)
from snnprune.measure.second_moments import (
    Grams,
    GramSum,
    LayerMoments,
    compute_losses,
    damping,
    fit_weights,
    invert,
    is_free,
)
from snnprune.pruning.criteria.obs import RIDGE, flip_gain
from snnprune.pruning.repair import Pruned, explain_unfitted, silence
from snnprune.pruning.repair.batchnorm import DenseNorm, Matching, match, measure_dense_norms
from snnprune.pruning.repair.cost import announce_cost
from snnprune.runtime import return_freed_memory


@torch.no_grad()
def give_back_means(pruned: Pruned) -> Masks:
    """Give each channel back the mean of its current, in the bias or the BatchNorm behind it.

    b_j + E[w_j x] - E[w'_j x'], x' the inputs in the network pruned and mended so far and b_j the
    bias of the dense one; where there is none, the running mean of the BatchNorm that comes next
    takes it off. A layer with neither stays as it is.
    """
    usage = count_usage(pruned.network, pruned.batches)
    layers = PrunedLayers.of(pruned, usage, norms={}, filtered=False)
    for key in pruned.masks:
        for name, held in _find_takers(pruned, key).items():
            held.copy_(pruned.dense[name])  # an earlier repair has moved it
    for key in layers.keys("giving back means"):
        moments = layers.moments(key)
        layer = pruned.network.layers[key]
        weight = layer.weight_of(pruned.network.module.get_parameter(key))
        rows = weight.double().reshape(*moments.mean.shape[:1], -1, moments.mean.shape[1])
        made = (rows @ moments.mean.unsqueeze(2)).flatten()
        _shift_current(pruned, key, moments.target_mean.flatten() - made)
        silence(pruned.network.module, pruned.silenced)
    return pruned.masks


@torch.no_grad()
def compensate(pruned: Pruned) -> Masks:
    """Let the kept weights of each layer make up for the others, as if it alone were pruned.

    min over w' of E|w x - w' x|^2 + ridge s |w' - w|^2, x the inputs of the dense network as the
    membrane adds them up: what the surgeon of `sbc` leaves (Shi et al. 2025, arXiv 2506.03996).
    """
    network, module = pruned.network, pruned.network.module
    grams = Grams(network, pruned.batches, filtered=True, seed=pruned.seed)
    keys = [key for key in pruned.masks if key not in explain_unfitted(network, pruned.masks)]
    for key in pruned.progress.track(keys, label="compensating", total=len(keys)):
        with replace_tensors(module, pruned.dense):
            gram = grams.of(key)
        if gram is None:
            continue
        layer, weight = network.layers[key], module.get_parameter(key)
        shape = (len(gram.second), -1, gram.second.shape[2])
        dense = layer.weight_of(pruned.dense[key]).double().reshape(shape)
        keep = layer.weight_of(pruned.masks[key].to(weight.device)).reshape(shape)
        found = fit_weights(gram.second, gram.second @ dense.mT, keep, dense, ridge=RIDGE)
        weight.copy_(layer.parameter_of(found.reshape(layer.shape)))
    return pruned.masks


@torch.no_grad()
def refit(pruned: Pruned) -> Masks:
    """Fit the kept weights to the currents of the dense network by least squares.

    Layer by layer: min over w' of E|w x - w' x'|^2 + ridge s |w' - w|^2, x the inputs of the dense
    network and x' those of the network pruned and mended so far, both as the membrane adds them up
    (at the end: the mean over time). Means go to the bias where there is one; the statistics of
    each BatchNorm are matched to what enters it, meanwhile and at last.
    """
    layers = _begin(pruned, chooses=False)
    for key in layers.keys("least squares"):
        layers.fit(key, layers.moments(key), pruned.masks[key])
    match(pruned, layers.norms)
    return pruned.masks


@torch.no_grad()
def choose_and_refit(pruned: Pruned) -> Masks:
    """As `refit`, and in each layer choose anew which weights stay, as many as before.

    Chosen by the order of OBS on the inputs that the network pruned so far has, weighed by the
    chance that an error of a channel changes a spike; see `sf_obs`. Frantar and Alistarh 2022,
    arXiv 2208.11580, choose and compensate together likewise, on the dense network's inputs.
    """
    if pruned.fixed:
        return refit(pruned)
    layers = _begin(pruned, chooses=True)
    masks = dict(pruned.masks)
    for key in layers.keys("choosing and least squares"):
        moments = layers.moments(key)
        masks[key] = layers.chosen(key, moments, int(masks[key].sum()))
        layers.fit(key, moments, masks[key])
        del moments  # of a wide layer they are large
    match(pruned, layers.norms)
    return masks


def _begin(pruned: Pruned, *, chooses: bool) -> PrunedLayers:
    """The layers, once it was told what they take and seen what enters the dense BatchNorms."""
    usage = count_usage(pruned.network, pruned.batches)
    graph = usage.graph or CallGraph.of_passes_from_the_input(usage.first.keys)
    tried = PrunedLayers.of(pruned, replace(usage, graph=graph), norms={}, filtered=True)
    announce_cost(pruned, usage, tried.order, tried.rehearse(), chooses=chooses)
    return PrunedLayers.of(pruned, usage, norms=measure_dense_norms(pruned), filtered=True)


@dataclass(frozen=True)
class PrunedLayers:
    """The layers of a pruned network, in the order in which data meets them."""

    pruned: Pruned
    order: tuple[str, ...]
    """The keys of those that were pruned and are used as they are."""
    dense: DenseCurrents
    norms: Mapping[str, DenseNorm]
    """Those of the dense network whose statistics are matched on the way."""
    replay: Replay

    @classmethod
    def of(
        cls, pruned: Pruned, usage: Usage, *, norms: Mapping[str, DenseNorm], filtered: bool
    ) -> PrunedLayers:
        left = explain_unfitted(pruned.network, pruned.masks)
        order = tuple(
            key
            for key in pruned.network.layers
            if key in pruned.masks and usage.calls[key] and key not in left
        )
        replay = Replay(
            pruned.network,
            usage.graph,
            batches=usage.batches,
            targets=order,
            settled=pruned.network.layers.keys() - set(order),
        )
        dense = DenseCurrents(pruned, usage, order, filtered=filtered)
        return cls(pruned, order, dense, norms, replay)

    def rehearse(self) -> Iterator[frozenset[int]]:
        """The calls that each pass would run, by their place: those of the dense network first.

        Such an object is good for nothing else.
        """
        yield from self.dense.rehearse()
        for key in self.order:
            yield self.replay.rehearse([key])
            self.replay.settle(key)

    def keys(self, label: str) -> Iterator[str]:
        """All of them, in turn; each is to be mended before the next is asked for."""
        for key in self.pruned.progress.track(self.order, label=label, total=len(self.order)):
            yield key
            self.replay.settle(key)
            return_freed_memory()

    def moments(self, key: str) -> LayerMoments:
        """Of the pruned network's inputs, and of the currents that the dense one makes then."""
        recorded = self.dense.take(key)
        with use_eval_mode(self.pruned.network.module):
            return self.replay.collect([key], lambda run: self._measure(key, recorded, run))

    def _measure(self, key: str, recorded: Sequence[BatchCurrents], run: Run) -> LayerMoments:
        network, rows = self.pruned.network, self.dense.new_sampler(key)
        matching, moments = Matching(self.norms), GramSum()
        for number, (x, y) in enumerate(network.feed(self.pruned.batches)):
            rows.counted += recorded[number].counted
            wanted = iter(recorded[number].calls)

            def see(row: Tensor, _: LayerCall, wanted: Iterator[Tensor] = wanted) -> None:
                moments.add(row, next(wanted))

            samples = network.count_samples(x, y)
            run(x, number, rows.watched(samples, number, see), matching.on_norm(number))
        moments.constant = rows.constant
        return moments.finish(free=is_free(network, key))

    def chosen(self, key: str, moments: LayerMoments, count: int) -> Tensor:
        """The mask of the `count` weights of a layer that are worth most."""
        layer = self.pruned.network.layers[key]
        dense = layer.weight_of(self.pruned.dense[key]).double()
        calibration = self.pruned.calibration
        statistics = calibration.layers.get(key) if calibration else None
        gain = flip_gain(dense, moments.gram, statistics)
        inverse = invert(moments.matrix, RIDGE)
        rows = dense.reshape(len(inverse), -1, inverse.shape[1])
        pull = damping(moments.matrix, RIDGE).view(-1, 1, 1) * rows.mT
        best = (inverse @ (moments.cross + pull)).mT  # were none pruned
        worth = compute_losses(inverse, best)
        gain = gain.to(worth.device)
        scores = (worth.reshape(len(gain), -1) * gain.unsqueeze(1)).flatten().cpu()
        if self.pruned.choosable is not None:
            choosable = layer.weight_of(self.pruned.choosable[key])
            scores = scores.masked_fill(~choosable.flatten(), -torch.inf)
        if key in self.pruned.rows:
            rows = scores.view(len(dense), -1)
            return layer.parameter_of(
                select_in_rows(rows, count, self.pruned.rows[key]).view(dense.shape)
            )
        mask = torch.zeros(len(scores), dtype=torch.bool)
        mask[scores.argsort(descending=True, stable=True)[:count]] = True
        return layer.parameter_of(mask.view(dense.shape))

    def fit(self, key: str, moments: LayerMoments, mask: Tensor, *, ridge: float = RIDGE) -> None:
        """Set the weights, and the bias where there is one, of one layer."""
        network, matrix = self.pruned.network, moments.matrix
        layer, weight = network.layers[key], network.module.get_parameter(key)
        shape = (len(matrix), -1, matrix.shape[1])
        start = layer.weight_of(self.pruned.dense[key]).double().reshape(shape)
        keep = layer.weight_of(mask.to(weight.device)).reshape(shape)
        found = fit_weights(matrix, moments.cross, keep, start, ridge=ridge)
        weight.copy_(layer.parameter_of(found.reshape(layer.shape)))
        self.give_bias(key, moments, found)

    def give_bias(self, key: str, moments: LayerMoments, rows: Tensor) -> None:
        """Set the bias of a layer, where it has one, by what `rows` (groups, out, d) lack."""
        bias = find_bias_key(self.pruned.network, key)
        if bias is not None:
            made = (rows @ moments.mean.unsqueeze(2)).flatten()
            was = self.pruned.dense[bias].double()
            missing = (moments.target_mean.flatten() - made) / moments.constant
            self.pruned.network.module.get_parameter(bias).copy_(was + missing)


def _shift_current(pruned: Pruned, key: str, by: Tensor) -> None:
    """Add to a layer's current, per channel."""
    for name, held in _find_takers(pruned, key).items():
        held.add_(by if name == find_bias_key(pruned.network, key) else -by)


def _find_takers(pruned: Pruned, key: str) -> dict[str, Tensor]:
    """What takes up the mean of a layer's current, by key: its bias, or running means behind it."""
    held = pruned.network.module.state_dict(keep_vars=True)
    bias = find_bias_key(pruned.network, key)
    if bias is not None:
        return {bias: held[bias]}
    chains = [chain for link in pruned.network.layers[key].links for chain in link.norms if chain]
    # a norm that is written by hand keeps its own
    variances = {chain[0].variance for chain in chains if chain[0].variance.endswith("running_var")}
    means = (variance.replace("running_var", "running_mean") for variance in sorted(variances))
    return {mean: held[mean] for mean in means if mean in held}


MEMORY = 2**26  # bytes of all currents that are held


@dataclass(frozen=True)
class BatchCurrents:
    """Of one layer and one batch."""

    calls: list[Tensor] = field(default_factory=list)
    """Of each call that gave rows, (groups, n, out / groups)."""
    counted: list[tuple[float, int]] = field(default_factory=list)
    """As `RowSampler.counted`."""


class DenseCurrents:
    """The currents of layer after layer, each asked for once and in the order of `keys`."""

    def __init__(
        self, pruned: Pruned, usage: Usage, keys: Sequence[str], *, filtered: bool
    ) -> None:
        self.pruned, self.usage, self.filtered = pruned, usage, filtered
        self._waiting = list(keys)
        self._held: dict[str, list[BatchCurrents]] = {}
        layers = pruned.network.layers
        self._replay = Replay(
            pruned.network, usage.graph, batches=usage.batches, targets=keys, settled=layers
        )

    def take(self, key: str) -> list[BatchCurrents]:
        """Those of a layer, batch by batch."""
        if key not in self._held:
            self._record(self._choose_group(key))
        return self._held.pop(key)

    def rehearse(self) -> Iterator[frozenset[int]]:
        """The calls that each pass would run, by their place, were all keys asked for."""
        while self._waiting:
            group = self._choose_group(self._waiting[0])
            self._waiting = self._waiting[len(group) :]
            yield self._replay.rehearse(group)

    def new_sampler(self, key: str) -> RowSampler:
        """What draws the rows of a layer."""
        return RowSampler(
            self.pruned.network,
            key,
            self.usage,
            filtered=self.filtered,
            seed=self.pruned.seed,
        )

    def _choose_group(self, key: str) -> list[str]:
        """`key` and the layers after it, as many as fit into memory."""
        self._waiting = self._waiting[self._waiting.index(key) :]
        size, group = 0, list[str]()
        for name in self._waiting:
            layer = self.pruned.network.layers[name]
            rows = self.new_sampler(name).quota * self.usage.calls[name] * self.usage.batches
            size += rows * layer.shape[0] * self.pruned.dense[name].element_size()
            if group and size > MEMORY:
                break
            group.append(name)
        return group

    @torch.no_grad()
    def _record(self, keys: list[str]) -> None:
        """Run the dense network over all batches, up to the last of these layers."""
        module = self.pruned.network.module
        with use_eval_mode(module), replace_tensors(module, self.pruned.dense):
            self._held = self._replay.collect(keys, lambda run: self._record_batches(keys, run))

    def _record_batches(self, keys: list[str], run: Run) -> dict[str, list[BatchCurrents]]:
        network = self.pruned.network
        samplers = {key: self.new_sampler(key) for key in keys}
        held: dict[str, list[BatchCurrents]] = {key: [] for key in keys}
        for number, (x, y) in enumerate(network.feed(self.pruned.batches)):
            samples = network.count_samples(x, y)
            watchers = {}
            for key, sampler in samplers.items():
                sampler.counted = []
                found = BatchCurrents(counted=sampler.counted)
                held[key].append(found)
                watchers[key] = sampler.watched(samples, number, self._see(key, found))
            run(x, number, _watch_all(watchers))
        return held

    def _see(self, key: str, found: BatchCurrents) -> Callable[[Tensor, LayerCall], None]:
        weight = self.pruned.network.layers[key].weight_of(self.pruned.dense[key])
        return lambda rows, _: found.calls.append(compute_currents(rows, weight))


def _watch_all(
    watchers: dict[str, Callable[[str, LayerCall], None]],
) -> Callable[[str, LayerCall], None]:
    """An observer that ends the pass once each of several would have ended it."""

    def on_layer(key: str, call: LayerCall) -> None:
        if key not in watchers:
            return
        try:
            watchers[key](key, call)
        except PassEnd:
            del watchers[key]
            if not watchers:
                raise

    return on_layer
