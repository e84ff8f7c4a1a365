"""Events for TensorBoard, which may fail."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from snnprune.training.runs.folder import TensorBoard, iter_scalars

EPOCH = {
    "kind": "epoch",
    "method": "imp",
    "round": 2,
    "epoch": 7,
    "train_loss": 0.5,
    "train_accuracy": 0.75,
    "validation_accuracy": None,
    "learning_rate": 0.1,
}
TICKET = {
    "kind": "ticket",
    "method": "imp",
    "round": 2,
    "sparsity_asked": 0.9,
    "pruned": 89,
    "prunable": 100,
    "parameters": 120,
    "validation_accuracy": 0.75,
    "test": {"correct": 150, "labelled": 200, "loss_sum": 100.0, "firing_rates": {"spikes": 0.2}},
    "layers": [{"weight": "conv.weight", "kept": 1, "weights": 4}],
}


def nothing_said(warning: str) -> None:
    raise AssertionError(warning)


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads from a folder."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def test_an_epoch_is_measured_below_the_name_of_its_method_without_what_is_unknown() -> None:
    assert dict(iter_scalars(EPOCH)) == {
        "imp/train_loss": 0.5,
        "imp/train_accuracy": 0.75,
        "imp/learning_rate": 0.1,
    }
    assert dict(iter_scalars({"kind": "epoch", "epoch": 1, "train_loss": 2})) == {"train_loss": 2.0}


def test_a_ticket_is_measured_with_its_layers_and_neurons() -> None:
    assert dict(iter_scalars(TICKET)) == {
        "imp/validation_accuracy": 0.75,
        "imp/sparsity_asked": 0.9,
        "imp/sparsity": 0.89,
        "imp/test_accuracy": 0.75,
        "imp/test_loss": 0.5,
        "imp/firing_rate/spikes": 0.2,
        "imp/density/conv.weight": 0.25,
    }
    assert "imp/sparsity" in dict(iter_scalars({**TICKET, "test": None}))


def test_names_are_escaped_and_values_finite() -> None:
    row = {"method": "a\x1b\ud800", "train_loss": float("nan"), "learning_rate": 0.1}
    assert list(iter_scalars(row)) == [("a\\x1b\\ud800/learning_rate", 0.1)]


def write(folder: Path, numbers: range, loss: float, after: int | None = None) -> None:
    board = TensorBoard(folder, after=after, warn=nothing_said)
    for number in numbers:
        board.add({**EPOCH, "train_loss": loss}, number)
    board.close()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "new" / "folder", range(1, 4), 0.5)
    assert points(tmp_path / "new" / "folder", "imp/train_loss") == [(1, 0.5), (2, 0.5), (3, 0.5)]


def test_no_point_is_double_after_a_resume_nor_left_from_an_older_run(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6), 1.0)  # killed after 5, when the newest state was 3
    write(tmp_path, range(4, 7), 2.0, after=3)
    assert points(tmp_path, "imp/train_loss") == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    write(tmp_path, range(1, 3), 3.0)
    assert points(tmp_path, "imp/train_loss") == [(1, 3), (2, 3)]


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def without_the_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)


def with_another_version(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", object())


def where_a_file_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.write_text("")


def on_a_full_disk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(TensorBoard, "_write", fail)


@pytest.mark.parametrize(
    ("trouble", "word"),
    [
        (without_the_package, "cannot be imported"),
        (with_another_version, "cannot be imported"),
        (where_a_file_is, "NotADirectoryError"),
        (on_a_full_disk, "No space left"),
    ],
)
def test_what_goes_wrong_is_told_once_and_the_run_goes_on(
    trouble: Callable[[pytest.MonkeyPatch, Path], None],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trouble(monkeypatch, tmp_path / "events")
    said: list[str] = []
    board = TensorBoard(tmp_path / "events", warn=said.append)
    for number in range(3):
        board.add(EPOCH, number)
    board.close()
    assert len(said) == 1
    assert word in said[0]
    assert str(tmp_path / "events") in said[0]


def test_a_disk_that_fills_up_later_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    board = TensorBoard(tmp_path, warn=said.append)
    board.add(EPOCH, 1)
    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "_write", fail)
        board.add(EPOCH, 2)
    board.add(TICKET, 3)
    board.close()
    assert len(said) == 1
    assert points(tmp_path, "imp/train_loss") == [(1, 0.5)]


def test_a_signal_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    board = TensorBoard(tmp_path, warn=nothing_said)
    monkeypatch.setattr(TensorBoard, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        board.add(EPOCH, 1)
    board.close()
