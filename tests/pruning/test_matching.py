"""BatchNorm is repaired by what pruning changed: whatever statistics the file holds are right."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pruned_networks import PICTURES, STEPS, batches, lif, made
from repairing import cut, dense, masks_of, pruned
from rewriting import FORMS, rewrite
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.masks import Masks
from snnprune.measure.channel_sums import ChannelMoments
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.pruning.repair import REPAIRS, Pruned, TuneOutcome, TuneSettings, load_repairs
from snnprune.pruning.repair.batchnorm import DenseNorm, measure_dense_norms

NORMALISED = ("convolved", "SpikingJelly at once", "SpikingJelly stepwise", "tied")
REPAIRED = (*REPAIRS.rows, "obs+tune")
SHORT = TuneSettings(steps=30, learning_rate=3e-3)


class Deep(nn.Module):
    """Two spiking convolutions with BatchNorm each; in a loop over time or all steps at once."""

    def __init__(self, *, affine: bool = True, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 3, bias=False), nn.Conv2d(6, 6, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(6, affine=affine)
        self.norm2 = nn.BatchNorm2d(6, affine=affine, track_running_stats=kind != "no statistics")
        self.lif1, self.lif2, self.drop = lif(), lif(), nn.Dropout(0.5)
        self.fc = nn.Linear(6 * 16, 4)

    def train(self, mode: bool = True) -> "Deep":
        super().train(mode)
        self.norm2.train(mode or self.kind == "training")
        self.drop.train(mode or self.kind == "dropout")
        return self

    def forward(self, x: Tensor) -> Tensor:
        z = self.lif1(self.norm1(self.conv1(x)).expand(STEPS, -1, -1, -1, -1))
        if self.kind == "noise":
            z = z * torch.rand_like(z).round()
        z = self.lif2(self.norm2(self.conv2(z.flatten(0, 1))).unflatten(0, (STEPS, -1)))
        return self.fc(self.drop(z.flatten(2)))


def deep(form: str = "", **given: object) -> Network:
    """Statistics as training leaves them, then rewritten into `form`."""
    torch.manual_seed(3)
    module = Deep(**given)  # type: ignore[arg-type]
    module.train()
    for norm in (module.norm1, module.norm2):
        norm.momentum = None  # a plain mean
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, 0.0, 0.5)
    with torch.no_grad():
        module(PICTURES)
    if form:
        rewrite(module, form)
    return trace(module.eval(), PICTURES[:2])


def outputs(module: nn.Module, name: str) -> list[Tensor]:
    """What the submodule gives, of all pictures."""
    seen: list[Tensor] = []
    hook = module.get_submodule(name).register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():
        for x, _ in batches():
            module(x)
    hook.remove()
    return seen


def mean_and_deviation(seen: list[Tensor]) -> tuple[Tensor, Tensor]:
    flat = torch.cat([one.double().transpose(0, 1).flatten(1) for one in seen], 1)
    return flat.mean(1), flat.std(1, correction=0)


@pytest.mark.many(1)
@pytest.mark.parametrize("repair", ["bn", "lsq"])
def test_what_leaves_a_norm_has_the_mean_and_deviation_of_the_dense_network(repair: str) -> None:
    of = pruned("convolved", kept=0.7)
    with dense(of) as module:
        wanted = mean_and_deviation(outputs(module, "norm1"))
    for one in load_repairs(repair):
        one(of)
    found = mean_and_deviation(outputs(of.network.module, "norm1"))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_norm_behind_repaired_layers_comes_near_to_it_in_one_pass() -> None:
    network = deep("stale")
    of = cut(network, masks_of(network, kept=0.6))
    with dense(of) as module:
        wanted = mean_and_deviation(outputs(module, "norm2"))
    before = mean_and_deviation(outputs(network.module, "norm2"))
    for one in load_repairs("bn"):
        one(of)
    found = mean_and_deviation(outputs(network.module, "norm2"))
    for now, was, goal in zip(found, before, wanted, strict=True):
        assert (now - goal).abs().mean() < 0.2 * (was - goal).abs().mean()


def after(network: Network, repair: str, sparsity: float) -> tuple[Tensor, Masks]:
    weights = {key: network.weight(key).clone() for key in network.layers}
    one = OneShot(network, weights, batches=batches)
    plan = Plan(criterion="magnitude", allocation="lamp", repair=repair, tuning=SHORT)
    masks = one.prune(plan, sparsity).masks
    with torch.no_grad():
        return network.module(PICTURES), masks


@pytest.mark.many(2)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("repair", REPAIRED)
def test_the_same_function_with_other_statistics_is_repaired_to_the_same(
    repair: str, form: str, sparsity: float
) -> None:
    found, masks = after(deep(form), repair, sparsity)
    expected, as_trained = after(deep(), repair, sparsity)
    assert all(torch.equal(masks[key], mask) for key, mask in as_trained.items())
    # spikes near the threshold may fall to the other side by rounding
    apart = (found - expected).abs().mean() / expected.abs().mean()
    assert apart < (0.02 if "tune" in repair else 1e-4)


@pytest.mark.many(2)
@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("repair", REPAIRED)
def test_where_nothing_is_pruned_nothing_changes_to_the_bit(repair: str, name: str) -> None:
    network = made(name)
    before = {key: tensor.clone() for key, tensor in network.module.state_dict().items()}
    after(network, repair, 0.0)
    now = network.module.state_dict()
    lasting = [key for key in before if not key.endswith("v_mem")]
    assert all(torch.equal(now[key], before[key]) for key in lasting)


@pytest.mark.parametrize("name", NORMALISED)
def test_under_masks_that_keep_all_statistics_stay_to_the_bit(name: str) -> None:
    network = made(name)
    everything = {key: torch.ones(one.shape).bool() for key, one in network.layers.items()}
    of = cut(network, everything)
    for one in load_repairs("bn"):
        one(of)
    now = network.module.state_dict()
    assert all(torch.equal(now[key], of.dense[key]) for key in now if "running" in key)


def test_a_channel_without_weights_gets_the_mean_that_it_had() -> None:
    network = made("convolved")
    masks = masks_of(network, kept=0.9)
    masks["conv1.weight"][1] = False
    of = cut(network, masks)
    with dense(of) as module:
        wanted, _ = mean_and_deviation(outputs(module, "norm1"))
    for one in load_repairs("bn"):
        one(of)
    found, deviation = mean_and_deviation(outputs(network.module, "norm1"))
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=1e-6)
    assert deviation[1] < 1e-6


def test_a_channel_that_is_constant_in_the_dense_network_is_shifted_alone() -> None:
    network = made("convolved")
    with torch.no_grad():
        network.module.get_parameter("conv1.weight")[2] = 0
    of = cut(network, masks_of(network, kept=0.5))
    for one in load_repairs("bn"):
        one(of)
    now, held = network.module.state_dict(), of.dense
    for kind in ("mean", "var"):
        assert torch.equal(now[f"norm1.running_{kind}"][2], held[f"norm1.running_{kind}"][2])
    assert all(bool(tensor.isfinite().all()) for tensor in now.values())


def moments(*values: float) -> ChannelMoments:
    """Of one channel that takes these."""
    found = ChannelMoments()
    found.add(torch.tensor(values).view(-1, 1, 1))
    return found


@pytest.mark.parametrize(
    ("dense", "now", "mean"), [((3, 3), (1, 5, 9), 2.5), ((1, 5, 9), (3, 3), -1.5)]
)
def test_a_channel_that_is_constant_in_one_of_the_networks_keeps_its_variance(
    dense: tuple[float, ...], now: tuple[float, ...], mean: float
) -> None:
    norm = DenseNorm(torch.tensor([0.5]), torch.tensor([2.0]), 1e-5)
    matched = norm.match_statistics(moments(*dense), moments(*now))
    assert [float(one) for one in matched] == [mean, 2.0]


def test_a_norm_without_scale_and_shift_is_tuned_behind() -> None:
    network = deep(affine=False)
    of = cut(network, masks_of(network, kept=0.6), tuning=SHORT)
    before = apart(of)
    for one in load_repairs("bn+tune"):
        one(of)
    assert apart(of) < before
    assert [name for name, _ in network.module.named_parameters() if "norm" in name] == []
    assert "weight" not in vars(network.module.get_submodule("norm1"))


@pytest.mark.parametrize("missing", ["weight", "bias", "neither"])
def test_a_norm_of_a_scale_alone_or_a_shift_alone_is_tuned_under_the_statistics_it_holds(
    missing: str,
) -> None:
    network = deep()
    norm = network.module.get_submodule("norm1")
    if missing != "neither":
        norm.register_parameter(missing, None)
    norm.get_buffer("running_mean").add_(0.1)  # not those of any batch
    everything = {key: torch.ones(one.shape).bool() for key, one in network.layers.items()}
    told: list[TuneOutcome] = []
    of = cut(network, everything, tuning=TuneSettings(steps=1), tell=told.append)
    for one in load_repairs("tune"):
        one(replace(of, batches=Batches(begin=lambda: batches(6))))
    # nothing is pruned: at the first step they are one network
    assert told[0].loss_at_first < 1e-9


def apart(of: Pruned) -> float:
    with dense(of) as module, torch.no_grad():
        wanted = module(PICTURES)
    with torch.no_grad():
        return float((of.network.module(PICTURES) - wanted).abs().mean())


KINDS: dict[str, Callable[[], Network]] = {
    kind: lambda kind=kind: deep(kind=kind)  # type: ignore[misc]
    for kind in ("no statistics", "training", "dropout", "noise")
}


@pytest.mark.parametrize("kind", ["no statistics", "training"])
def test_a_norm_by_the_batch_is_seen_and_its_layer_left_to_magnitude(kind: str) -> None:
    network = KINDS[kind]()
    assert network.restless == {"norm2": "by batch"}
    (link,) = network.layers["conv2.weight"].links
    assert link.obstacle == "batch_norm"
    (plain,) = deep().layers["conv2.weight"].links
    assert plain.obstacle is None


@pytest.mark.parametrize("kind", ["no statistics", "training", "dropout"])
def test_only_a_norm_by_statistics_that_it_holds_is_measured(kind: str) -> None:
    network = KINDS[kind]()
    found = measure_dense_norms(cut(network, masks_of(network)))
    by_statistics = ["norm1", "norm2"] if kind == "dropout" else ["norm1"]
    assert list(found) == [f"{name}.running_var" for name in by_statistics]


@pytest.mark.many(2)
@pytest.mark.parametrize("repair", REPAIRED)
def test_statistics_that_each_pass_takes_anew_stay_as_they_were(repair: str) -> None:
    network = KINDS["training"]()
    before = {key: tensor.clone() for key, tensor in network.module.state_dict().items()}
    weights = {key: network.weight(key).clone() for key in network.layers}
    one = OneShot(network, weights, batches=batches)
    one.prune(Plan(criterion="magnitude", repair=repair, tuning=SHORT), 0.5)
    now = network.module.state_dict()
    assert all(torch.equal(now[key], before[key]) for key in before if "norm2.running" in key)


@pytest.mark.parametrize(("kind", "found"), [("dropout", {"drop": "dropping"}), ("noise", {})])
def test_a_network_that_draws_is_known_by_its_generator(kind: str, found: dict[str, str]) -> None:
    network = KINDS[kind]()
    assert network.draws == 0
    assert network.restless == found
    assert deep().draws is None


@pytest.mark.parametrize(
    ("deviation", "ratio"),
    [
        (2.0, 4.0),
        (0.125, 1 / 64),
        (2**-10, 1e-4),  # scaled up a hundredfold and no further
        (1e-6, 1.0),  # it is constant but for rounding
    ],
)
def test_a_variance_is_held_by_the_ratio_of_what_enters(deviation: float, ratio: float) -> None:
    norm = DenseNorm(mean=torch.tensor([0.5]), variance=torch.tensor([2.0]), eps=1e-12)
    mean, variance = norm.match_statistics(
        moments(0.0, 2.0), moments(3.0 - deviation, 3.0 + deviation)
    )
    assert float(variance) == pytest.approx(2 * ratio, rel=1e-6)
    assert float(mean) == pytest.approx(3 - (1 - 0.5) * ratio**0.5, rel=1e-6)
