from pathlib import Path

import pytest
import torch

from snnprune.errors import InputError, UsageError
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.criteria.criterion import Criterion, Evidence
from snnprune.pruning.score import score

OWN = """
from snnprune.pruning.criteria import criterion


@criterion(needs="weight")
def squared(evidence):
    return evidence.weight**2


@criterion(needs="weight")
def broken(evidence):
    return evidence.weight.flatten()


def plain(evidence):
    return evidence.weight
"""


def test_magnitude_is_the_absolute_value() -> None:
    weight = torch.tensor([[-2.0, 1.0]])
    found = load_criterion("magnitude")(Evidence(weight=weight, key="w"))
    assert found.tolist() == [[2.0, 1.0]]


def test_random_depends_on_seed_and_key_alone() -> None:
    random = load_criterion("random")
    weight = torch.ones(3, 4)
    first = random(Evidence(weight=weight, key="a", seed=1))
    assert torch.equal(first, random(Evidence(weight=2 * weight, key="a", seed=1)))
    assert not torch.equal(first, random(Evidence(weight=weight, key="a", seed=2)))
    assert not torch.equal(first, random(Evidence(weight=weight, key="b", seed=1)))


def test_an_unknown_name_is_a_usage_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean magnitude"):
        load_criterion("magnitud")


def test_a_criterion_comes_from_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    squared = load_criterion(f"{file}:squared")
    assert isinstance(squared, Criterion)
    found = score({"w": torch.tensor([[3.0, 0.0]])}, squared, name="squared")
    assert found.values["w"].tolist() == [[9.0, -torch.inf]]
    with pytest.raises(InputError, match="not a criterion"):
        load_criterion(f"{file}:plain")
    with pytest.raises(InputError, match=r"w: broken gives \(2,\) instead of a tensor"):
        score({"w": torch.ones(1, 2)}, load_criterion(f"{file}:broken"), name="broken")


def test_a_criterion_that_needs_data_says_so() -> None:
    with pytest.raises(InputError, match="sf needs the network and data"):
        score({"w": torch.ones(1, 2)}, load_criterion("sf"), name="sf")
