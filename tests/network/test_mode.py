import pytest
import torch
from torch import nn

from snnprune.network import batch_length, evaluating


def test_each_part_is_put_back_into_its_own_mode_also_after_an_exception() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).train()
    module[1].eval()  # frozen by the user
    module[0].register_forward_hook(lambda child, *_: seen.append(child.training))
    seen: list[bool] = []
    with pytest.raises(RuntimeError), evaluating(module):
        module(torch.zeros(2, 3))  # three inputs for a layer of one
    with evaluating(module):
        module(torch.zeros(2, 1))
    assert seen == [False]
    assert [child.training for child in module.modules()] == [True, True, False]


def test_events_are_counted_by_their_labels() -> None:
    events = torch.zeros(4, 3, 1, 2, 2)
    assert batch_length(events, torch.zeros(3)) == 3
    assert batch_length(events[0], None) == 3
