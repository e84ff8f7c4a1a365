"""Values put in the place of a network's own, wherever it is."""

import pytest
import torch
from torch import nn

from snnprune.distributed.ranks import choose_device
from snnprune.errors import UsageError
from snnprune.graph.state import replace_tensors


def test_values_go_where_the_network_is() -> None:
    module = nn.Linear(3, 2, device="meta")
    with replace_tensors(module, {"weight": torch.ones(2, 3)}):
        assert module.weight.device.type == "meta"  # as what is computed with it
    assert module.weight.device.type == "meta"


def test_nothing_is_copied_that_lies_there() -> None:
    module, other = nn.Linear(3, 2), torch.ones(2, 3)
    own, before = module.weight, module.weight.data_ptr()
    with replace_tensors(module, {"weight": other}):
        assert module.weight is own
        assert module.weight.data_ptr() == other.data_ptr()
    assert module.weight.data_ptr() == before


def test_a_device_without_64_bit_floats_is_refused() -> None:
    with pytest.raises(UsageError, match="mps has no 64-bit floats"):
        choose_device("mps")
