"""Masks that are held in a loop of somebody's own."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn, optim

import snnprune
from snnprune.checkpoint.mask_file import write_masks
from snnprune.errors import InputError, UsageError
from snnprune.masks import Masks
from snnprune.training.holding import MaskHolder


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def masks_of(model: nn.Module, share: float = 0.6) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    weights = {key: one for key, one in model.named_parameters() if one.dim() > 1}
    return {key: torch.rand(one.shape, generator=drawn) > share for key, one in weights.items()}


X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(2)), torch.arange(32) % 3


def loss_of(model: nn.Module, x: Tensor = X, y: Tensor = Y) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


def assert_held(model: nn.Module, masks: Masks, *optimizers: optim.Optimizer) -> None:
    for key, mask in masks.items():
        weight = model.get_parameter(key)
        assert not weight[~mask].any()
        assert weight[mask].all()
        for one in optimizers:
            for remembered in one.state.get(weight, {}).values():
                if remembered.shape == weight.shape:
                    assert not remembered[~mask].any()


MAKERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "momentum": lambda held: optim.SGD(held, 0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda held: optim.AdamW(held, 0.01),
    "fused": lambda held: optim.Adam(held, 0.01, fused=True),
}


@pytest.mark.parametrize("name", MAKERS)
def test_pruned_weights_and_what_is_remembered_of_them_stay_0_and_the_others_learn(
    name: str,
) -> None:
    model = small()
    masks = masks_of(model)
    optimizer = MAKERS[name](model.parameters())
    loss_of(model).backward()
    optimizer.step()  # so that something is remembered of all of them
    before = loss_of(model).item()
    with snnprune.hold_masks(model, masks, optimizer) as holder:
        for _ in range(20):
            optimizer.zero_grad()
            loss_of(model).backward()
            for key, mask in masks.items():
                gradient = model.get_parameter(key).grad
                assert gradient is not None
                assert not gradient[~mask].any()  # whose norm somebody may clip now
            optimizer.step()
            assert_held(model, masks, optimizer)
        assert loss_of(model).item() < before
        assert holder.sparsity == 1 - sum(int(m.sum()) for m in masks.values()) / 45
        assert repr(holder) == f"<MaskHolder: {holder.sparsity:.1%} pruned in 2 layers, held>"
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()
    assert model.get_parameter("0.weight")[~masks["0.weight"]].any()
    assert repr(holder).endswith("released>")


def test_the_others_learn_as_they_would_if_the_pruned_ones_were_not_there() -> None:
    model, masks = small(), masks_of(small())
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    held = snnprune.hold_masks(model, masks, optimizer)
    other = small()
    plain = optim.SGD(other.parameters(), 0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        masked = {key: p * masks[key] if key in masks else p for key, p in other.named_parameters()}
        plain.zero_grad()
        out = torch.func.functional_call(other, masked, (X,))
        nn.functional.cross_entropy(out, Y).backward()
        plain.step()
    for key, one in model.named_parameters():
        expected = (
            other.get_parameter(key) * masks[key] if key in masks else other.get_parameter(key)
        )
        assert torch.equal(one, expected)
    held.release()


def test_gradients_may_be_accumulated_scaled_and_stepped_by_several_optimizers() -> None:
    model, masks = small(), masks_of(small())
    first = optim.SGD(model[0].parameters(), 0.1, momentum=0.9)
    second = optim.AdamW(model[2].parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with snnprune.hold_masks(model, masks, first, second):
        for number in range(9):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model)
            if number == 4:
                loss = loss * torch.inf  # of which the scaler makes no step
            scaler.scale(loss).backward()
            if number % 2 == 0:
                for one in (first, second):
                    scaler.step(one)
                    one.zero_grad()
                scaler.update()
            assert_held(model, masks, first, second)
    assert all(one.isfinite().all() for one in model.parameters())


def test_masks_come_from_a_result_a_file_the_weights_or_a_dict(tmp_path: Path) -> None:
    model = small()
    masks = masks_of(model)
    file = tmp_path / "a.mask.safetensors"
    write_masks(file, {f"module.{key}": mask for key, mask in masks.items()}, {})
    pruned = small()
    with torch.no_grad():
        for key, mask in masks.items():
            pruned.get_parameter(key).mul_(mask)
    given: list[tuple[nn.Module, Any]] = [
        (small(), masks),
        (small(), SimpleNamespace(masks=masks)),
        (small(), file),
        (small(), str(file)),
        (pruned, None),
    ]
    for one, source in given:
        found = snnprune.hold_masks(one, source).masks
        assert found.keys() == masks.keys()
        assert all(torch.equal(found[key], mask) for key, mask in masks.items())
        assert_held(one, masks)


class Around(nn.Module):
    """A module that has the network as a part, as a LightningModule does."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = small(), nn.Linear(3, 3)


def test_wrappers_and_what_is_in_front_of_a_key_do_not_matter() -> None:
    masks = masks_of(small())
    compiled = cast(nn.Module, torch.compile(small()))
    parallel = nn.DataParallel(small())
    inner = nn.Sequential(cast(nn.Module, torch.compile(small())))
    around = Around()
    names: dict[nn.Module, str] = {
        compiled: "",
        parallel: "",
        inner: "0._orig_mod.",
        around: "net.",
    }
    for model, prefix in names.items():
        held = snnprune.hold_masks(model, masks).masks
        assert [*held] == [f"{prefix}{key}" for key in masks]
    longer = {f"model.net.{key}": mask for key, mask in masks.items()}
    assert [*snnprune.hold_masks(small(), longer).masks] == [*masks]


def test_weights_that_are_moved_or_loaded_meanwhile_are_masked_again() -> None:
    model, masks = small(), masks_of(small())
    optimizer = optim.SGD(model.parameters(), 0.1)
    holder = snnprune.hold_masks(model, masks)
    holder.attach(optimizer)
    model.load_state_dict(small().state_dict())
    holder.apply()
    assert_held(model, masks)
    model.double()
    loss_of(model, X.double()).backward()
    optimizer.step()
    assert_held(model, masks, optimizer)


def test_what_is_no_mask_of_the_model_is_told() -> None:
    model = small()
    masks = masks_of(model)
    twice = nn.ModuleList([small(), small()])
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: snnprune.hold_masks(model), UsageError, "masks: no weight is 0"),
        (lambda: snnprune.hold_masks(model, {}), UsageError, "masks: a dict has no masks"),
        (lambda: snnprune.hold_masks(model, 3), UsageError, "masks: a int has no masks"),  # type: ignore[arg-type]
        (lambda: snnprune.hold_masks(3, masks), UsageError, "model: a int is no torch"),  # type: ignore[arg-type]
        (lambda: snnprune.hold_masks(model, masks, model), UsageError, "is no optimizer"),  # type: ignore[arg-type]
        (
            lambda: snnprune.hold_masks(model, {"0.weight": torch.ones(5, 6)}),
            UsageError,
            "0.weight is no bool tensor",
        ),
        (
            lambda: snnprune.hold_masks(model, {"0.weight": masks["2.weight"]}),
            InputError,
            r"0.weight: the mask has shape \[3, 5\], the weight \[5, 6\]",
        ),
        (
            lambda: snnprune.hold_masks(model, {"0.weigth": masks["0.weight"]}),
            InputError,
            "0.weigth is no weight of the model. did you mean 0.weight",
        ),
        (
            lambda: snnprune.hold_masks(twice, {"weight": masks["0.weight"]}),
            InputError,
            "weight fits 0.0.weight and 0.2.weight and 1.0.weight",
        ),
        (lambda: snnprune.hold_masks(model, "nowhere.safetensors"), InputError, "no such file"),
    ]
    for call, kind, told in cases:
        with pytest.raises(kind, match=told):
            call()
    assert all(
        one.grad is None and not one._post_accumulate_grad_hooks for one in model.parameters()
    )


def test_a_callback_holds_masks_between_the_begin_and_the_end_of_a_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Callback:
        """As Lightning's, of which a Trainer takes instances alone."""

        state_key = "key"

    library = ModuleType("lightning.pytorch")
    library.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", library)
    model = Around()
    masks = masks_of(small())
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trainer = SimpleNamespace(optimizers=[optimizer])
    callback: Any = snnprune.MaskCallback(masks)
    assert isinstance(callback, Callback)
    assert isinstance(callback, snnprune.MaskCallback)
    twin: Any = pickle.loads(pickle.dumps(callback))  # as for processes that are spawned
    assert twin.given.keys() == masks.keys()
    assert isinstance(twin, Callback)
    for ends in (
        lambda: callback.on_train_end(trainer, model),
        lambda: callback.on_exception(trainer, model, KeyboardInterrupt()),
    ):
        callback.on_train_start(trainer, model)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model.net).backward()
            optimizer.step()
        assert_held(model.net, masks, optimizer)
        ends()
        loss_of(model.net).backward()
        optimizer.step()
        assert model.get_parameter("net.0.weight")[~masks["0.weight"]].any()


def test_without_lightning_a_callback_is_an_object_with_the_same_methods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snnprune.training.holding.HOMES", ())
    callback = snnprune.MaskCallback()
    assert type(callback).__mro__[1:] == (object,)
    callback.on_train_end(None, small())  # before it began
    assert isinstance(snnprune.hold_masks(small(), masks_of(small())), MaskHolder)
