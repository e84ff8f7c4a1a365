"""What is read off the calls of a pass, in shapes that calls come in."""

import inspect
from collections import namedtuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from snnprune.graph.calls import _read_batch_norm, name_of, read_norm_call
from snnprune.graph.origins import list_tensors


def test_tensors_are_listed_in_the_order_of_torchs_trees() -> None:
    a, b, c, d = (torch.full((), float(number)) for number in range(4))
    pair = namedtuple("pair", "first second")
    parameter = torch.nn.Parameter(b)
    trees = (
        (a, [b, None, (c, 1.0)], {"y": d, "x": [a, "text"]}),
        ((), {"z": pair(a, (torch.float32, b)), "s": a.shape}),
        parameter,
        None,
        [torch.Size([1]), slice(a, None), {"deep": ({"er": parameter},)}],
    )
    for tree in trees:
        expected = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
        found = list_tensors(tree)
        assert len(found) == len(expected)
        assert all(one is other for one, other in zip(found, expected, strict=True))


def test_a_batch_norm_is_read_as_torch_reads_it() -> None:
    ours = inspect.signature(_read_batch_norm).parameters.values()
    theirs = inspect.signature(functional.batch_norm).parameters.values()
    assert [(one.name, one.default) for one in ours] == [(one.name, one.default) for one in theirs]
    x, mean, variance, scale = torch.rand(2, 3), torch.zeros(3), torch.ones(3), torch.rand(3)
    call = read_norm_call(functional.batch_norm, (x, mean), {"running_var": variance, "eps": 0.1})
    assert call is not None
    assert (call.input, call.mean, call.variance, call.scale) == (x, mean, variance, None)
    assert (call.eps, call.training) == (0.1, False)
    call = read_norm_call(functional.batch_norm, (x, None, None, scale, None, True), {})
    assert call is not None
    assert (call.scale, call.training, call.eps) == (scale, True, 1e-5)
    assert read_norm_call(functional.layer_norm, (x, (3,)), {}) is None


def test_a_function_is_called_the_same_each_time_that_it_is_asked_for() -> None:
    getters = [getattr(Tensor, name).__get__ for name in ("T", "mT", "T", "mT")]
    assert [name_of(getter) for getter in getters] == ["T", "mT", "T", "mT"]
    named = [name_of(one) for one in (torch.add, Tensor.add_, Tensor.__iadd__, torch.relu_)]
    assert named == ["add", "add", "add", "relu"]
