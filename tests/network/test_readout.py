import pytest
import torch

from snnprune.errors import InputError
from snnprune.network.readout import class_scores


def test_scores_are_the_sum_over_time_of_a_tensor_or_a_list() -> None:
    steps = torch.rand(4, 2, 3)
    assert torch.equal(class_scores(steps, 2), steps.sum(0))
    assert torch.equal(class_scores(list(steps), 2), steps.sum(0))


def test_an_output_without_time_is_taken_as_it_is() -> None:
    scores = torch.rand(2, 3)
    assert torch.equal(class_scores(scores, 2), scores)


@pytest.mark.parametrize("output", [torch.rand(4, 3, 3), torch.rand(2), {"a": 1}])
def test_any_other_output_is_refused(output: object) -> None:
    with pytest.raises(InputError, match="--readout"):
        class_scores(output, 2)


def test_of_a_tuple_the_spikes_are_read_and_a_list_is_over_time() -> None:
    spikes, membranes = torch.rand(4, 2, 3), torch.rand(4, 2, 3)
    assert torch.equal(class_scores((spikes, membranes), 2), spikes.sum(0))
    assert torch.equal(class_scores((list(spikes), membranes), 2), spikes.sum(0))
