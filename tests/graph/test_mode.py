import pytest
import torch
from torch import nn

from snnprune.graph.state import use_eval_mode


def test_each_part_is_put_back_into_its_own_mode_also_after_an_exception() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).train()
    module[1].eval()  # frozen by the user
    module[0].register_forward_hook(lambda child, *_: seen.append(child.training))
    seen: list[bool] = []
    with pytest.raises(RuntimeError), use_eval_mode(module):
        module(torch.zeros(2, 3))  # three inputs for a layer of one
    with use_eval_mode(module):
        module(torch.zeros(2, 1))
    assert seen == [False]
    assert [child.training for child in module.modules()] == [True, True, False]
