"""Pruned networks on grids of integers: rounded alone, and with what makes up for the rounding.

    python tests/benchmarks/one_shot/bench_quantize.py RUNS [--data-root DIR] [--repair NAME]

RUNS has the networks that bench_one_shot.py trains. Each is pruned once, by magnitude and LAMP with
`--repair` (`obs` is `--no-tune`, `tune` the default of the command), and then put on grids of 8, 4
and 3 bits in four ways: `rounded` leaves the rest as it is, `matched` matches the BatchNorms
behind it, `made up for` has the other weights of a row make up for each error, and `fitted` fits
those that are kept before: what `prune --bits` does. A line each: accuracy in percent, and the mean
KL divergence of the outputs from the dense network's in nats.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from bench_one_shot import NETWORKS, TESTED, WHOLE, Network

from snnprune.graph.state import copy_tensors
from snnprune.jobs.prune.methods import BY_SIZE
from snnprune.measure.agreement_pass import measure_agreements
from snnprune.pruning.oneshot import OneShot
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.repair import Pruned, TuneSettings
from snnprune.pruning.repair.batchnorm import match, measure_dense_norms
from snnprune.pruning.repair.layerwise import PrunedLayers
from snnprune.pruning.repair.quantize import quantize, quantize_by_rounding

Way = Callable[[Pruned, int], object]


@torch.no_grad()
def round_weights(pruned: Pruned, bits: int) -> None:
    """Each weight by itself."""
    module = pruned.network.module
    found = quantize_by_rounding(
        {key: module.get_parameter(key) for key in pruned.masks},
        pruned.masks,
        bits,
        reasons=dict.fromkeys(pruned.masks, "asked for"),
        network=pruned.network,
    )
    for key, held in found.weights.items():
        module.get_parameter(key).copy_(held.multiply())


def round_and_match(pruned: Pruned, bits: int) -> None:
    """Likewise, and the statistics of each BatchNorm moved by what that changed."""
    as_given = replace(pruned, dense=copy_tensors(pruned.network.module))
    norms = measure_dense_norms(as_given)
    round_weights(pruned, bits)
    match(as_given, norms)


def make_up(pruned: Pruned, bits: int) -> None:
    """As `quantize`, without the fit before."""
    with mock.patch.object(PrunedLayers, "fit"):
        quantize(pruned, bits)


WAYS: dict[str, Way] = {
    "rounded": round_weights,
    "matched": round_and_match,
    "made up for": make_up,
    "fitted": quantize,
}


def tell(name: str, network: Network) -> None:
    """Print how the network does that the module holds."""
    one = network.one_shot
    assert one.network is not None
    held = copy_tensors(one.network.module)
    agreement = measure_agreements(one.network, one._dense, [held], iter(network.tests))[0]
    assert agreement.outputs is not None
    divergence = agreement.outputs.mean_divergence
    print(f"{name}: {network.accuracy():.2f} %, {divergence:.4f} nats", flush=True)


def put_back(one: OneShot, cut: PruneResult, state: dict[str, torch.Tensor]) -> Pruned:
    """The network as it was pruned."""
    one.restore()
    assert one.network is not None
    assert one.batches is not None
    held = one.network.module.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, tensor in state.items():
            held[key].data = tensor.clone()
    return Pruned(network=one.network, dense=one._dense, masks=cut.masks, batches=one.batches)


def main() -> None:
    """Measure one network after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--repair", default="obs")
    parser.add_argument("--sparsity", type=float, default=0.9)
    given = parser.parse_args()
    for name in given.network or ("plain-4", "res-4", "soft-2", "narrow-8"):
        network = Network(
            given.runs / f"{name}-0",
            NETWORKS[name],
            0,
            given.data_root,
            test_data=WHOLE if given.data_root else None,
            tested=TESTED,
        )
        tuning = TuneSettings(steps=network.count_steps(), augment=("flip",))
        plan = replace(BY_SIZE, repair=given.repair, tuning=tuning)
        cut = network.one_shot.prune(plan, given.sparsity)
        module = network.subject.require_runnable().module
        state = copy_tensors(module)
        tell(f"{name}, floats", network)
        for bits in (8, 4, 3):
            for way, quantizes in WAYS.items():
                quantizes(put_back(network.one_shot, cut, state), bits)
                tell(f"{name}, {bits} bits, {way}", network)


if __name__ == "__main__":
    main()
