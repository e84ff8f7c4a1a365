"""Weights that a file holds in parts."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from snnprune.checkpoint.checkpoint import Checkpoint, find_prunable_weights, fold_masks
from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.naming import find_parametrized


def checkpoint(tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(
        path=Path("a.pth"), container="torch", tensors=tensors, metadata={}, sha256="", notes=()
    )


def test_pruned_parameters_are_folded_as_torch_computes_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 3))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    prune.l1_unstructured(model[0], "weight", amount=0.5)  # twice: one mask
    prune.random_unstructured(model[2], "bias", amount=2)
    torch.save({"net": model.state_dict()}, tmp_path / "a.pth")
    raw = read_checkpoint(tmp_path / "a.pth")
    assert "0.weight_orig" in raw.tensors
    found = fold_masks(raw)
    assert set(found.tensors) == {f"{i}.{name}" for i in (0, 2, 3) for name in ("weight", "bias")}
    for key, tensor in found.tensors.items():
        index, name = key.split(".")
        assert torch.equal(tensor, getattr(model[int(index)], name))
    assert found.notes[-1] == (
        "folded 2 masks of torch.nn.utils.prune into the weights: 0.weight, 2.bias"
    )
    assert set(find_prunable_weights(found.tensors)) == {"0.weight", "2.weight", "3.weight"}


def test_the_weight_stands_where_the_first_part_stood() -> None:
    tensors = {"a": torch.ones(1), "w_mask": torch.ones(2), "b": torch.ones(1),
               "w_orig": torch.ones(2)}  # fmt: skip
    found = fold_masks(checkpoint(tensors))
    assert list(found.tensors) == ["a", "w", "b"]
    assert found.names == {"a": "a", "w": "w", "b": "b"}
    assert found.folded == {"w_mask": "w", "w_orig": "w"}


def test_the_keys_of_the_file_have_the_prefix_that_the_parts_had(tmp_path: Path) -> None:
    tensors = {"module.w_orig": torch.ones(2), "module.w_mask": torch.ones(2)}
    torch.save(tensors, tmp_path / "a.pth")
    found = fold_masks(read_checkpoint(tmp_path / "a.pth"))
    assert found.in_file({"w": 1}) == {"module.w": 1}
    assert found.folded == {"module.w_orig": "module.w", "module.w_mask": "module.w"}


@given(
    st.lists(st.tuples(st.floats(width=32), st.sampled_from([0.0, 1.0])), min_size=1, max_size=20)
)
def test_what_is_masked_is_plus_zero_whatever_it_was(pairs: list[tuple[float, float]]) -> None:
    original = torch.tensor([value for value, _ in pairs])
    mask = torch.tensor([kept for _, kept in pairs])
    found = fold_masks(checkpoint({"w_orig": original, "w_mask": mask})).tensors["w"]
    expected = [value if kept else 0.0 for value, kept in pairs]
    assert str(found.tolist()) == str(torch.tensor(expected).tolist())  # nan and -0.0 differ so


@pytest.mark.parametrize(
    "tensors",
    [
        {"w_orig": torch.ones(2)},
        {"w_mask": torch.ones(2)},
        {"w_orig": torch.ones(2), "w_mask": torch.ones(3)},
        {"w_orig": torch.ones(2), "w_mask": torch.ones(2), "w": torch.ones(2)},
        {"w_orig": torch.ones(2), "v_mask": torch.ones(2)},
    ],
    ids=["no mask", "no weight", "other shape", "a weight too", "of two"],
)
def test_what_are_no_two_parts_of_one_weight_stays(tensors: dict[str, Tensor]) -> None:
    whole = checkpoint(tensors)
    assert fold_masks(whole) is whole


def layer() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("wrapped", "what"),
    [
        (lambda: nn.utils.weight_norm(layer()), "weight norm"),
        (lambda: nn.utils.spectral_norm(layer()), "spectral norm"),
        (lambda: parametrizations.weight_norm(layer()), "a parametrization"),
        (lambda: parametrizations.orthogonal(layer()), "a parametrization"),
    ],
    ids=["weight norm", "spectral norm", "new weight norm", "orthogonal"],
)
def test_a_weight_that_is_only_computed_is_named(wrapped: Any, what: str) -> None:
    model = nn.Sequential(layer(), wrapped())
    assert find_parametrized(model.state_dict()) == {"1.weight": what}
    assert find_parametrized(wrapped().state_dict()) == {"weight": what}


def test_plain_and_pruned_weights_are_not_computed() -> None:
    model = nn.Sequential(layer(), nn.BatchNorm1d(2))
    prune.l1_unstructured(model[0], "weight", amount=1)
    assert find_parametrized(model.state_dict()) == {}
    assert find_parametrized({"w_g": torch.ones(1), "rest.original": torch.ones(1)}) == {}
