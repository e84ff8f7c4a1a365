"""One-shot pruning of whole networks: exact counts, and dense tensors that come back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pruned_networks import PICTURES, batches, made
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.graph.network import Network
from snnprune.graph.state import copy_tensors
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.measure.calibrate import calibrate
from snnprune.pruning.allocation import load_allocation
from snnprune.pruning.allocation.rules import compute_flip_energies
from snnprune.pruning.criteria import CRITERIA, Criterion, load_criterion
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.pruning.prune import PruneResult, prune
from snnprune.pruning.repair import REPAIRS, TuneSettings
from snnprune.pruning.score import Scores
from snnprune.pruning.structure import PatternCutting, parse_structure

NAMES = ("convolved", "snnTorch", "sinabs", "SpikingJelly at once", "tied")


def weights_of(network: Network) -> dict[str, Tensor]:
    return {key: network.weight(key).clone() for key in network.layers}


def made_ready(name: str = "convolved") -> OneShot:
    network = made(name)
    return OneShot(network, weights_of(network), batches=batches)


SHORT = TuneSettings(steps=16)


def state(one: OneShot) -> dict[str, Tensor]:
    """A copy of the module's tensors."""
    assert one.network is not None
    return copy_tensors(one.network.module)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return list(found) == list(expected) and all(
        torch.equal(found[key], tensor) for key, tensor in expected.items()
    )


@pytest.mark.many(4)
@pytest.mark.parametrize("repair", ["none", *REPAIRS.rows, "obs+tune"])
def test_the_dense_network_comes_back_bit_by_bit(repair: str) -> None:
    one = made_ready()
    dense = state(one)
    one.prune(Plan(criterion="magnitude", repair=repair, tuning=SHORT), 0.7)
    assert not same(state(one), dense)
    one.restore()
    assert same(state(one), dense)


@pytest.mark.many(2)
@pytest.mark.parametrize("name", NAMES)
def test_the_dense_network_comes_back_after_somebody_ran_it(name: str) -> None:
    one = made_ready(name)
    assert one.network is not None
    before = {key: parameter.clone() for key, parameter in one.network.module.named_parameters()}
    one.prune(Plan(criterion="magnitude", repair="lsq"), 0.5)
    with torch.no_grad():
        one.network.module(PICTURES)
    one.restore()
    after = dict(one.network.module.named_parameters())
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert one.tensors() == {}


@pytest.mark.many(1)
@pytest.mark.parametrize(
    ("criterion", "repair"),
    [
        ("magnitude", "obs+tune"),
        ("sf", "lsq"),
        ("obs", "none"),
        ("sf-obs", "mean"),
        ("taylor", "bn"),
    ],
)
def test_what_was_pruned_before_does_not_matter(criterion: str, repair: str) -> None:
    plan = Plan(criterion=criterion, repair=repair, tuning=SHORT)
    first, again = made_ready(), made_ready()
    first.prune(plan, 0.5)
    first.prune(Plan(criterion="magnitude", repair="mean"), 0.3)
    one, other = first.prune(plan, 0.9), again.prune(plan, 0.9)
    assert same(dict(one.masks), dict(other.masks))
    assert same(state(first), state(again))


@pytest.mark.many(2)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(
    ("criterion", "repair"),
    [
        ("magnitude", "none"),
        ("sf", "lsq"),
        ("obs-membrane", "none"),
        ("magnitude", "obs"),
        ("magnitude", "tune"),
        ("sf", "obs+tune"),
    ],
)
def test_the_count_is_exact_after_any_number_of_steps(
    steps: int, criterion: str, repair: str
) -> None:
    one = made_ready()
    plan = Plan(criterion=criterion, repair=repair, steps=steps, tuning=SHORT)
    cut = one.prune(plan, 0.8)
    assert count_pruned(cut.masks) == round(0.8 * count_prunable(cut.masks))
    now = state(one)
    assert all(not now[key][~mask].any() for key, mask in cut.masks.items())
    assert cut.already_zero == 0


def test_steps_on_the_way_leave_the_same_share_each_time() -> None:
    assert Plan(criterion="obs").path(0.9) == [0.9]
    assert Plan(criterion="obs", steps=2).path(0.75) == pytest.approx([0.5, 0.75])
    assert Plan(criterion="obs", steps=3).path(0.875) == pytest.approx([0.5, 0.75, 0.875])
    assert Plan(criterion="obs", steps=2).path(0.875, first=0.5) == pytest.approx([0.75, 0.875])


def test_a_second_step_prunes_more_of_what_is_left() -> None:
    one, seen = made_ready(), list[Masks]()

    def cutting(
        weights: Mapping[str, Tensor], scores: Scores, sparsity: float, alive: Masks | None
    ) -> PruneResult:
        seen.append(alive if alive is not None else {})
        return prune(
            weights, scores, sparsity=sparsity, allocation=load_allocation("global"), alive=alive
        )

    cut = one.prune(Plan(criterion="magnitude", steps=3), 0.8, cutting)
    assert seen[0] == {}
    assert [count_pruned(masks) for masks in seen[1:]] == [
        round((1 - 0.2 ** (n / 3)) * count_prunable(cut.masks)) for n in (1, 2)
    ]
    for before, after in zip(seen[1:], (*seen[2:], cut.masks), strict=True):
        assert all(not (after[key] & ~before[key]).any() for key in after)


def test_a_second_step_scores_the_network_as_it_is_then() -> None:
    one, seen, plan = made_ready(), list[Scores](), Plan(criterion="sf", steps=2)
    assert one.network is not None

    def cutting(
        weights: Mapping[str, Tensor], scores: Scores, sparsity: float, alive: Masks | None
    ) -> PruneResult:
        seen.append(scores)
        local = load_allocation("local")
        return prune(weights, scores, sparsity=sparsity, allocation=local, alive=alive)

    one.prune(replace(plan, steps=1), plan.path(0.6)[0], cutting)
    expected = OneShot(one.network, weights_of(one.network), batches=batches).scores(plan)
    one.prune(plan, 0.6, cutting)
    assert same(dict(seen[-1].values), dict(expected.values))
    assert not same(dict(seen[-1].values), dict(seen[0].values))


def test_a_repair_chooses_among_what_the_step_before_has_left() -> None:
    one, plan = made_ready(), Plan(criterion="random", repair="obs", steps=2)
    before = one.prune(replace(plan, steps=1), plan.path(0.8)[0]).masks
    after = one.prune(plan, 0.8).masks
    assert count_pruned(after) > count_pruned(before)
    assert all(not (after[key] & ~mask).any() for key, mask in before.items())


def test_weights_that_were_0_before_are_counted_once_and_stay_so() -> None:
    network = made("convolved")
    with torch.no_grad():
        network.module.get_parameter("conv2.weight").view(-1)[:30] = 0
    one = OneShot(network, weights_of(network), batches=batches)
    for steps in (1, 2):
        cut = one.prune(Plan(criterion="magnitude", repair="obs", steps=steps), 0.7)
        count = round(0.7 * count_prunable(cut.masks))
        assert count_pruned(cut.masks) == count
        assert cut.already_zero == 30
        assert cut.warnings == (f"30 of the {count} pruned weights were 0 already",)
        assert not cut.masks["conv2.weight"].view(-1)[:30].any()


@pytest.mark.parametrize(
    ("plan", "needed"),
    [
        (Plan(criterion="magnitude"), False),
        (Plan(criterion="magnitude", repair="bn+mean+sbc+lsq+tune"), False),
        (Plan(criterion="magnitude", allocation="lamp"), False),
        (Plan(criterion="magnitude", repair="obs"), True),
        (Plan(criterion="magnitude", repair="bn+obs"), True),
        (Plan(criterion="magnitude", allocation="flips"), True),
        (Plan(criterion="sf"), True),
        (Plan(criterion="taylor"), True),
    ],
)
def test_statistics_are_taken_where_something_looks_at_them(plan: Plan, needed: bool) -> None:
    assert plan.load().needs_statistics is needed


def test_layers_that_a_criterion_does_not_suit_have_magnitudes_on_its_scale() -> None:
    one = made_ready()
    scores = one.scores(Plan(criterion="sf"))
    assert scores.fallback.keys() >= {"conv1.weight", "fc.weight"}
    for key in scores.fallback:
        torch.testing.assert_close(scores.values[key], one.weights[key].abs().log())


def test_flips_are_shared_out_by_the_statistics_of_the_dense_network() -> None:
    one = made_ready()
    assert one.network is not None
    plan = Plan(criterion="magnitude", allocation="flips")
    found = one.prune(plan, 0.6).masks
    one.restore()
    energies = compute_flip_energies(one.weights, one.network, calibrate(one.network, batches()))
    allocation = load_allocation("flips")
    expected = prune(
        one.weights, one.scores(plan), sparsity=0.6, allocation=allocation, flips=energies
    )
    assert same(dict(found), dict(expected.masks))


def test_what_a_plan_names_is_loaded_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str) -> Criterion:
        loaded.append(name)
        return load_criterion(name)

    monkeypatch.setattr("snnprune.pruning.oneshot.load_criterion", load)
    one, plan = made_ready(), Plan(criterion="sf", steps=3).load()
    one.scores(plan)
    assert one.prune(plan, 0.7).masks
    assert loaded == ["sf"]


def test_nothing_that_was_dense_is_told_to_have_been_0() -> None:
    for steps in (1, 2, 3):
        cut = made_ready().prune(Plan(criterion="magnitude", steps=steps), 0.7)
        assert cut.warnings == ()


@pytest.mark.parametrize("repair", ["none", "bn", "lsq", "tune"])
def test_tensors_are_those_that_differ_and_no_others(repair: str) -> None:
    one = made_ready()
    dense = state(one)
    cut = one.prune(Plan(criterion="magnitude", repair=repair, tuning=SHORT), 0.7)
    found, now = one.tensors(), state(one)
    assert set(found) == {key for key in dense if not torch.equal(dense[key], now[key])}
    assert all(torch.equal(found[key], now[key]) for key in found)
    assert set(found) >= {key for key, mask in cut.masks.items() if not mask.all()}
    if repair == "none":
        assert set(found) <= set(cut.masks)
    one.restore()
    assert any(not torch.equal(tensor, state(one)[key]) for key, tensor in found.items())


@pytest.mark.parametrize("steps", [1, 2])
def test_without_a_network_weights_are_pruned_by_magnitude(steps: int) -> None:
    network = made("convolved")
    one = OneShot(None, weights_of(network))
    cut = one.prune(Plan(criterion="magnitude", steps=steps), 0.6)
    found = one.tensors()
    sizes = torch.cat([weight.abs().flatten() for weight in one.weights.values()]).sort().values
    least = sizes[round(0.6 * len(sizes))]
    for key, weight in one.weights.items():
        assert torch.equal(cut.masks[key], weight.abs() >= least)
        assert torch.equal(found[key], weight * cut.masks[key])
    one.restore()
    assert one.tensors() == {}


@pytest.mark.parametrize("criterion", ["sf", "obs", "taylor", "wanda"])
def test_what_needs_data_says_so_in_one_line(criterion: str) -> None:
    network = made("convolved")
    for given in (None, network):
        one = OneShot(given, weights_of(network))
        with pytest.raises(InputError, match="needs the network and data") as told:
            one.prune(Plan(criterion=criterion), 0.5)
        assert len(str(told.value).splitlines()) == 1
    with pytest.raises(InputError, match="needs the network and data"):
        OneShot(network, weights_of(network)).prune(Plan(criterion="magnitude", repair="lsq"), 0.5)


def test_statistics_that_are_at_hand_are_enough_without_data() -> None:
    network = made("convolved")
    known = calibrate(network, batches())
    at_hand = OneShot(network, weights_of(network), calibration=known)
    masks = [one.prune(Plan(criterion="sf"), 0.5).masks for one in (at_hand, made_ready())]
    assert same(dict(masks[0]), dict(masks[1]))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("sparsity", [95.0, 1.0, -0.1, float("nan")])
def test_a_sparsity_that_is_none_is_refused(sparsity: float, steps: int) -> None:
    one = made_ready()
    before = state(one)
    with pytest.raises(UsageError, match=r"outside \[0, 1\)"):
        one.prune(Plan(criterion="magnitude", steps=steps), sparsity)
    assert same(state(one), before)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(criterion="magnitud"),
        Plan(criterion="magnitude", repair="lsq+tun"),
        Plan(criterion="magnitude", allocation="globl"),
    ],
)
def test_a_name_that_is_not_known_is_told(plan: Plan) -> None:
    with pytest.raises((InputError, UsageError), match="did you mean"):
        made_ready().prune(plan, 0.5)


OWN_REPAIRS = """
def leave(pruned):
    return pruned.masks

def forget(pruned):
    pass

def listed(pruned):
    return list(pruned.masks)

def partly(pruned):
    return {key: mask for key, mask in pruned.masks.items() if key != "fc.weight"}

def whole(pruned):
    return {key: mask | True for key, mask in pruned.masks.items()}

def floats(pruned):
    return {key: mask.float() for key, mask in pruned.masks.items()}

def flat(pruned):
    return {key: mask.flatten() for key, mask in pruned.masks.items()}

def numbers(pruned):
    return {key: int(mask.sum()) for key, mask in pruned.masks.items()}

def backwards(pruned):
    return {key: mask.flip(0) for key, mask in pruned.masks.items()}
"""


@pytest.mark.parametrize("name", ["leave", "backwards"])
def test_a_repair_of_the_users_own_gives_masks_that_keep_as_many(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_REPAIRS)
    one, plan = made_ready(), Plan(criterion="magnitude")
    plain = one.prune(plan, 0.5).masks
    found = one.prune(replace(plan, repair=f"{tmp_path / 'mine.py'}:{name}"), 0.5).masks
    expected = plain if name == "leave" else {key: mask.flip(0) for key, mask in plain.items()}
    assert same(dict(found), dict(expected))


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        ("forget", "NoneType"),
        ("listed", "list"),
        *((name, "other masks") for name in ("partly", "whole", "floats", "flat", "numbers")),
    ],
)
def test_a_repair_of_the_users_own_that_gives_something_else_is_told(
    name: str, returned: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(OWN_REPAIRS)
    plan = Plan(criterion="magnitude", repair=f"{tmp_path / 'mine.py'}:{name}")
    with pytest.raises(InputError) as caught:
        made_ready().prune(plan, 0.5)
    assert str(caught.value).endswith(
        f"mine.py:{name} returned {returned}. "
        "expected the masks of all weights, as many kept in each as it was given"
    )


@pytest.mark.parametrize("criterion", sorted(CRITERIA.rows))
def test_every_criterion_prunes_exactly(criterion: str) -> None:
    cut = made_ready("snnTorch").prune(Plan(criterion=criterion), 0.6)
    assert count_pruned(cut.masks) == round(0.6 * count_prunable(cut.masks))


@pytest.mark.parametrize("repair", ["tune", "obs+tune"])
def test_tuning_goes_from_half_to_the_counts_of_the_allocation(repair: str) -> None:
    one = made_ready()
    plan = Plan(criterion="magnitude", allocation="lamp", repair=repair, tuning=SHORT)
    goal = one.prune(replace(plan, repair="none"), 0.9).masks
    masks = one.prune(plan, 0.9).masks
    assert {k: int(m.sum()) for k, m in masks.items()} == {k: int(m.sum()) for k, m in goal.items()}
    assert one.tuned is not None
    assert one.tuned.kept == round(0.1 * count_prunable(goal))
    total = count_prunable(goal)
    if repair == "tune":  # what lamp keeps of a tenth is among what it keeps of a half
        assert one.tuned.kept_before == total - round(0.5 * total)
    assert one.tuned.kept_before >= total - round(0.5 * total)
    one.restore()
    assert one.tuned is None


@pytest.mark.parametrize(("sparsity", "tuned"), [(0.9, True), (0.7, False)])
def test_a_network_that_has_more_zeros_than_half_is_tuned_to_what_is_asked_for_beyond_them(
    sparsity: float, tuned: bool
) -> None:
    network = made("convolved")
    with torch.no_grad():
        for key in network.layers:
            weight = network.module.get_parameter(key)
            weight[weight.abs() < weight.abs().flatten().quantile(0.8)] = 0
    one = OneShot(network, weights_of(network), batches=batches)
    zeros = sum(int((weight == 0).sum()) for weight in one.weights.values())
    plan = Plan(criterion="magnitude", repair="tune", tuning=TuneSettings(steps=3))
    cut = one.prune(plan, sparsity)
    of = count_prunable(cut.masks)
    assert count_pruned(cut.masks) == max(zeros, round(sparsity * of))
    assert (one.tuned is not None) is tuned
    for key, mask in cut.masks.items():
        assert not network.weight(key)[~mask].any()


def test_tuning_holds_the_masks_where_no_more_than_half_goes() -> None:
    one = made_ready()
    plan = Plan(criterion="magnitude", allocation="lamp", repair="tune", tuning=SHORT)
    masks = one.prune(plan, 0.4).masks
    expected = one.prune(replace(plan, repair="none"), 0.4).masks
    assert same(dict(masks), dict(expected))


def test_layers_with_a_sparsity_of_their_own_are_tuned_from_half_each() -> None:
    network = made("convolved")
    with torch.no_grad():
        network.module.get_parameter("conv2.weight").mul_(1e-3)  # over all layers it would go whole
    one = OneShot(network, weights_of(network), batches=batches)
    plan = Plan(criterion="magnitude", repair="tune", tuning=SHORT)

    def cutting(
        weights: Mapping[str, Tensor], scores: Scores, _: float, alive: Masks | None
    ) -> PruneResult:
        local = load_allocation("local")
        return prune(weights, scores, sparsity=0.9, allocation=local, alive=alive)

    masks = one.prune(plan, 0.0, cutting).masks
    assert one.tuned is not None
    total = count_prunable(masks)
    assert one.tuned.kept == total - count_pruned(masks) < 0.15 * total
    assert one.tuned.kept_before == total - round(0.5 * total)


def test_tuning_holds_masks_of_a_structure_however_much_goes() -> None:
    one = made_ready("linears")
    assert one.network is not None
    cutting = PatternCutting(parse_structure("1:4"), one.network.layers)
    plan = Plan(criterion="magnitude", repair="tune", tuning=SHORT)
    found = one.prune(plan, 0.75, cutting, structured=True).masks
    expected = one.prune(replace(plan, repair="none"), 0.75, cutting, structured=True).masks
    assert count_pruned(found) > 0.7 * count_prunable(found)
    assert same(dict(found), dict(expected))


def test_tuning_in_several_steps_ends_at_the_sparsity_asked_for() -> None:
    plan = Plan(criterion="magnitude", repair="tune", steps=2, tuning=SHORT)
    assert plan.path(0.9)[0] > 0.5
    cut = made_ready("linears").prune(plan, 0.9)
    assert count_pruned(cut.masks) == round(0.9 * count_prunable(cut.masks))


def test_what_a_layer_of_its_own_sparsity_is_to_keep_is_there_when_it_is_tuned() -> None:
    one = made_ready()

    def cutting(
        weights: Mapping[str, Tensor], scores: Scores, _: float, alive: Masks | None
    ) -> PruneResult:
        local = load_allocation("local")
        cut = prune(weights, scores, sparsity=0.9, allocation=local, alive=alive)
        whole = torch.ones_like(cut.masks["conv1.weight"])
        return replace(cut, masks={**cut.masks, "conv1.weight": whole})

    plan = Plan(criterion="magnitude", repair="tune", tuning=SHORT)
    assert one.prune(plan, 0.0, cutting).masks["conv1.weight"].all()
