"""States: what is written comes back, and damage is found."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError, OutputError
from snnprune.training.runs.folder import Metrics
from snnprune.training.runs.state import (
    HASH,
    POSITION,
    State,
    StateStore,
    hash_state,
    read_state,
    take_up,
    write_state,
)


def some_state(number: int = 0) -> State:
    """Every kind of tensor that an optimizer or a network keeps."""
    return State(
        position={"epoch": number, "loss_sum": 0.1 + 0.2, "scaler": {}, "best": None},
        groups={
            "model": {
                "conv.weight": torch.full((2, 1, 3, 3), float(number)),
                "norm.num_batches_tracked": torch.tensor(number),
                "a/b.half": torch.arange(3.0).bfloat16(),
            },
            "optimizer": {"step/conv.weight": torch.tensor(7.0), "mask": torch.tensor([True])},
        },
    )


def flat(state: State) -> dict[tuple[str, str], Tensor]:
    return {(g, name): t for g, named in state.groups.items() for name, t in named.items()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, some_state(3))
    found, expected = read_state(path), some_state(3)
    assert found.position == expected.position
    assert list(flat(found)) == list(flat(expected))
    for key, tensor in flat(expected).items():
        assert flat(found)[key].dtype == tensor.dtype
        assert torch.equal(flat(found)[key], tensor)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_what_an_optimizer_remembers_may_overflow(value: float, tmp_path: Path) -> None:
    path, spoilt = tmp_path / "state.safetensors", torch.tensor([1.0, value])
    for group in ("optimizer", "model", "average"):
        state = some_state()
        write_state(path, replace(state, groups={**state.groups, group: {"a.weight": spoilt}}))
        with (
            nullcontext()
            if group == "optimizer"
            else pytest.raises(InputError, match=r"a\.weight: ")
        ):
            found = read_state(path).groups["optimizer"]["a.weight"]
            assert torch.equal(found.isfinite(), spoilt.isfinite())


def test_a_state_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, some_state(3))
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["snnprune.position"])["epoch"] == 3
        assert torch.equal(
            file.get_tensor("model/conv.weight"), some_state(3).groups["model"]["conv.weight"]
        )


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, some_state())
    whole = path.read_bytes()
    meaningless = b'"format":"pt"'  # a word for other readers
    start = whole.index(meaningless)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if start <= place < start + len(meaningless):
            continue
        with pytest.raises(InputError):
            read_state(path)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_state_that_is_cut_off_is_found(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, some_state())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError):
        read_state(path)


def test_a_position_that_is_no_json_is_refused_though_its_hash_fits(tmp_path: Path) -> None:
    path, text = tmp_path / "state.safetensors", "[" * 100_000
    tensors = {"model/weight": torch.zeros(1)}
    metadata = {POSITION: text, HASH: hash_state(text, tensors)}
    write_safetensors(path, tensors, metadata)
    with pytest.raises(InputError, match="its position is not JSON"):
        read_state(path)


def test_the_two_newest_are_kept_by_number_and_not_by_text(tmp_path: Path) -> None:
    states = StateStore(tmp_path)
    for number in (9, 999_999, 1_000_000):
        states.save(number, some_state(number))
    assert names(tmp_path) == ["step-1000000.safetensors", "step-999999.safetensors"]
    newest, warnings = states.read_newest()
    assert newest is not None
    assert (newest.position["epoch"], warnings) == (1_000_000, ())


def test_a_damaged_newest_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    states = StateStore(tmp_path)
    states.save(1, some_state(1))
    states.save(2, some_state(2))
    (tmp_path / "step-000002.safetensors").write_bytes(b"")
    newest, warnings = states.read_newest()
    assert newest is not None
    assert newest.position["epoch"] == 1
    assert len(warnings) == 1
    assert "step-000002.safetensors" in warnings[0]
    assert "the state before it" in warnings[0]


def test_a_state_that_was_gone_back_from_does_not_outlive_the_next_one(tmp_path: Path) -> None:
    states = StateStore(tmp_path)
    states.save(10, some_state())
    (tmp_path / "step-000020.safetensors").write_bytes(b"torn")
    states.save(12, some_state(12))
    assert names(tmp_path) == ["step-000010.safetensors", "step-000012.safetensors"]


def test_when_all_are_damaged_it_is_said(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"step-00000{number}.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"no state is whole.*--force starts again"):
        StateStore(tmp_path).read_newest()


def test_without_states_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "step-x.safetensors").touch()
    assert StateStore(tmp_path).read_newest() == (None, ())
    assert StateStore(tmp_path / "nothing").read_newest() == (None, ())


def test_what_does_not_fit_the_network_is_told_with_the_file(tmp_path: Path) -> None:
    write_state(tmp_path / "s.safetensors", some_state())
    with pytest.raises(InputError, match=r"s\.safetensors: does not fit the run"):  # noqa: SIM117
        with take_up(read_state(tmp_path / "s.safetensors")) as state:
            torch.nn.Linear(2, 2).load_state_dict(dict(state.groups["model"]))


def test_metrics_are_cut_back_to_what_is_known(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for epoch in range(3):
        metrics.add({"epoch": epoch, "loss": 0.1 * epoch})
    with metrics.path.open("a") as file:
        file.write('{"epoch": 3, "lo')  # killed while it was written
    again = Metrics(metrics.path)
    again.cut(2)
    assert again.rows == [{"epoch": 0, "loss": 0.0}, {"epoch": 1, "loss": 0.1}]
    assert metrics.path.read_text() == '{"epoch": 0, "loss": 0.0}\n{"epoch": 1, "loss": 0.1}\n'


def test_metrics_that_miss_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\nnonsense\n')
    with pytest.raises(InputError, match="has 2 whole lines, 3 were written"):
        Metrics(path).cut(3)
    with pytest.raises(InputError, match="holds a line that is no row"):
        Metrics(path).cut(2)


def test_metrics_that_cannot_be_written_are_an_error_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.metrics\.jsonl: cannot be written"):
        Metrics(tmp_path / "nowhere" / "metrics.jsonl").add({})
