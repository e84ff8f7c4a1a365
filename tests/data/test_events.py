"""Samples that lie in time: `moving-mini`, frames on disk, and recordings of several lengths."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnprune.data import Augmentation, DataOptions, DataSet, moving, open_data, require_data
from snnprune.data.events import EventSplit
from snnprune.data.public import BUNDLED, read_part
from snnprune.errors import InputError, UsageError
from snnprune.graph.forward import CountedForward, call_module, load_forward, place_time_first

PLAIN = Augmentation()


def opened(name: str, **options: Any) -> DataSet:
    return open_data(name, options=DataOptions(**options))


def events_of(split: object) -> EventSplit:
    assert isinstance(split, EventSplit)
    return split


def labels_of(split: object) -> Tensor:
    labels = events_of(split).labels
    assert labels is not None
    return labels


@pytest.fixture(scope="module")
def mini() -> DataSet:
    return opened("moving-mini")


def test_moving_mini_is_the_same_on_every_machine(mini: DataSet) -> None:
    frames = events_of(mini.train).images
    assert hashlib.sha256(frames.numpy().tobytes()).hexdigest() == (
        "faac5bcaf6ab4ee63e5cf5d4573b6470942727aef8a1d02d4e588cded0dcd262"
    )


def test_moving_mini_has_as_many_recordings_of_each_class(mini: DataSet) -> None:
    assert (mini.classes, mini.channels, mini.size, mini.time_steps) == (10, 2, 32, 8)
    assert mini.time_first
    assert labels_of(mini.train).bincount().tolist() == [200] * 10
    assert labels_of(mini.test).bincount().tolist() == [50] * 10
    assert events_of(mini.train).images.shape == (2000, 8, 2, 32, 32)
    assert mini.augmentable == ()  # a mirrored recording is of another class


def test_batches_of_events_have_time_first_and_are_counts(mini: DataSet) -> None:
    x, y = next(iter(events_of(mini.test).batches(7)))
    assert (x.shape, x.dtype) == ((8, 7, 2, 32, 32), torch.float32)
    assert torch.equal(x.transpose(0, 1), events_of(mini.test).images[:7].float())
    assert y is not None
    assert y.tolist() == labels_of(mini.test)[:7].tolist()


def test_no_single_frame_tells_the_direction_and_their_order_does() -> None:
    pictures = read_part(BUNDLED, "t10k", hint="")[0][:20, 0].numpy()

    def made(*, to_right: bool, dark: bool) -> np.ndarray[Any, Any]:
        frames = np.zeros((20, 8, 2, 32, 32), np.uint8)
        ways = (np.full(20, to_right), np.full(20, dark))
        moving._fill_frames(frames, pictures, *ways, np.random.RandomState(0))
        return frames

    bright_right = made(to_right=True, dark=False)
    dark_left = made(to_right=False, dark=True)
    assert (bright_right[:, ::-1] != dark_left).mean() < 0.01  # the noise alone
    assert (bright_right != dark_left).mean() > 0.05


def test_the_frames_of_moving_mini_are_chosen_in_its_name() -> None:
    data = opened("moving-mini:frames=3")
    assert (data.name, data.time_steps) == ("moving-mini:frames=3", 3)
    assert opened("moving-mini:frames=8").name == "moving-mini"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("moving-mini:frames=17", "frames=17 is more than 16"),
        ("moving-mini:frames=0", "frames=0 is no whole number above 0"),
        ("moving-mini:frames", None),
        ("moving-mini:size=16", "has no setting 'size'"),
        ("nmnist:frame=3", "has no setting 'frame'. did you mean frames"),
        ("nmnist:frames=3,bins=3", "frames and bins exclude each other"),
        ("nmnist:frames=3,frames=3", "frames is said twice"),
        ("nmnist:size=35", "size=35 is more than 34"),
        ("nmnist:frames=³", "is no whole number"),
    ],
)
def test_settings_are_refused_before_anything_is_opened(name: str, told: str | None) -> None:
    if told is None:  # a function `frames` of the user's module moving-mini
        require_data(name)
        return
    with pytest.raises(UsageError) as caught:
        require_data(name)
    assert told in str(caught.value)
    with pytest.raises(InputError):
        require_data(name, field="data.name")


def recordings(lengths: list[int], shape: tuple[int, ...] = (2, 3, 3)) -> EventSplit:
    """Of number n all values of a step are n + 1; behind its end there is 99, which is no data."""
    images = torch.full((len(lengths), max(lengths), *shape), 99, dtype=torch.uint8)
    for number, length in enumerate(lengths):
        images[number, :length] = number + 1
    labels = torch.arange(len(lengths)) % 2
    return EventSplit(images=images, labels=labels, lengths=torch.tensor(lengths))


LENGTHS = [3, 5, 3, 4, 5, 3, 3]


def test_a_batch_holds_recordings_of_one_length_and_no_padding() -> None:
    split = recordings(LENGTHS)
    batches = split.batches(2)
    shapes = [(x.shape[0], x.shape[1]) for x, _ in batches]
    assert shapes == [(3, 2), (3, 2), (4, 1), (5, 2)]
    assert batches.count == split.steps(2) == 4
    assert all(float(x.max()) < 99 for x, _ in batches)
    seen = torch.cat([x[0, :, 0, 0, 0] for x, _ in batches]).tolist()
    assert seen == [1, 3, 6, 7, 4, 2, 5]
    labels = torch.cat([y for _, y in batches]).tolist()
    assert labels == [(number - 1) % 2 for number in map(int, seen)]


def test_training_sees_every_recording_once_in_an_order_of_its_key() -> None:
    split = recordings(LENGTHS)

    def epoch(number: int, start: int = 0) -> list[list[int]]:
        batches = split.shuffle(2, key=(0, number), device="cpu", augment=PLAIN, start=start)
        return [x[0, :, 0, 0, 0].int().tolist() for x, _ in batches]

    orders = [epoch(number) for number in range(8)]
    assert all(
        sorted(one for batch in order for one in batch) == [1, 2, 3, 4, 5, 6, 7] for order in orders
    )
    assert len({str(order) for order in orders}) > 4
    assert epoch(0) == orders[0]
    assert epoch(0, start=2) == orders[0][2:]


def test_a_sample_and_the_rest_keep_their_lengths() -> None:
    split = recordings(LENGTHS)
    part = split.subset(torch.tensor([4, 0]))
    assert part.lengths is not None
    assert part.lengths.tolist() == [5, 3]
    assert part.time_steps is None
    assert [x.shape[0] for x, _ in split.batches(9, limit=2)] == [3, 5]


def test_a_recording_is_mirrored_as_a_whole() -> None:
    images = torch.arange(2 * 4 * 2 * 3 * 3).view(2, 4, 2, 3, 3) % 251
    split = EventSplit(images=images.to(torch.uint8), labels=torch.tensor([0, 1]))
    for seed in range(4):
        batches = split.shuffle(2, key=(seed,), device="cpu", augment=Augmentation(flip=True))
        x, y = next(batches)
        assert y is not None
        for sample, label in zip(x.transpose(0, 1), y.tolist(), strict=True):
            plain = images[label].float()
            assert torch.equal(sample, plain) or torch.equal(sample, plain.flip(-1))


def write_frames(folder: Path, name: str, frames: Any, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", frames=frames, **more)


Writer = Callable[[str, str, Any], None]


@pytest.fixture
def spikingjelly_folder(tmp_path: Path) -> Path:
    """As SpikingJelly's `integrate_events_file_to_frames_file_by_fixed_frames_number` writes it."""
    folder = tmp_path / "frames_number_4_split_by_number"
    for part, count in (("train", 3), ("test", 2)):
        for label in range(11):
            for number in range(count):
                frames = np.zeros((4, 2, 6, 6))
                frames[number, label % 2, label % 6] = label + 1
                frames[3, 1, 5, 5] = 10 * number + (part == "test")
                write_frames(folder / part / str(label), f"user0{number}", frames)
    return folder


def test_spikingjelly_frames_are_read_as_they_lie(spikingjelly_folder: Path) -> None:
    data = opened(f"frames:{spikingjelly_folder}")
    assert (data.classes, data.channels, data.size, data.time_steps) == (11, 2, 6, 4)
    assert labels_of(data.train).tolist() == [label for label in range(11) for _ in range(3)]
    split = events_of(data.test)
    assert split.images.shape == (22, 4, 2, 6, 6)
    assert split.images.dtype == torch.uint8
    assert split.images[-1, 1, 0, 4].tolist() == [11] * 6  # class 10 behind class 9, not behind 1
    assert data.name == f"frames:{spikingjelly_folder}"
    require_data(data.name)


def test_frames_of_several_lengths_and_of_large_counts_keep_every_value(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", "1", np.full((2, 1, 2, 2), 300))
    write_frames(tmp_path / "b", "2", np.full((3, 1, 2, 2), 7))
    data = opened(f"frames:{tmp_path}")
    train = events_of(data.train)
    assert data.time_steps is None
    assert train.images.dtype == torch.int16
    assert [(x.shape[0], float(x.max())) for x, _ in train.batches(4)] == [(2, 300.0), (3, 7.0)]
    write_frames(tmp_path / "b", "2", np.full((3, 1, 2, 2), 0.5))
    assert events_of(opened(f"frames:{tmp_path}").train).images.dtype == torch.float32


def test_damaged_and_other_files_are_one_line(tmp_path: Path) -> None:
    def told() -> str:
        with pytest.raises(InputError) as caught:
            opened(f"frames:{tmp_path}")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "holds no folder per class" in told()
    (tmp_path / "a").mkdir()
    assert "holds no .npz file" in told()
    (tmp_path / "a" / "x.npz").write_bytes(b"no zip")
    assert "x.npz: cannot be read" in told()
    np.savez(tmp_path / "a" / "x.npz", t=np.zeros(3), p=np.zeros(3))
    assert "holds t, p, expected frames" in told()
    np.savez(tmp_path / "a" / "x.npz", frames=np.array([{}], dtype=object))
    assert "x.npz: cannot be read" in told()  # a pickle, which nobody opens
    np.savez(tmp_path / "a" / "x.npz", frames=np.full((2, 2, 4, 4), np.nan))
    assert "expected finite frames (T, C, H, W)" in told()
    np.savez(tmp_path / "a" / "x.npz", frames=np.ones((2, 2, 4, 4)))
    np.savez(tmp_path / "a" / "y.npz", frames=np.ones((2, 2, 4, 5)))
    assert "has frames of (2, 4, 5)" in told()


def test_a_copied_test_folder_is_refused(spikingjelly_folder: Path) -> None:
    for label in range(11):
        for path in (spikingjelly_folder / "test" / str(label)).iterdir():
            path.write_bytes((spikingjelly_folder / "train" / str(label) / path.name).read_bytes())
    with pytest.raises(InputError, match="are training samples"):
        opened(f"frames:{spikingjelly_folder}")


def test_a_built_in_way_knows_that_time_is_first_and_repeating_is_refused(mini: DataSet) -> None:
    whole = place_time_first(call_module, None, mini)
    assert isinstance(whole, CountedForward)
    assert whole.samples(torch.zeros(4, 4, 2), torch.zeros(4)) == 4
    with pytest.raises(InputError, match="has no time first"):
        whole.samples(torch.zeros(3, 2, 2), torch.zeros(3))
    with pytest.raises(UsageError, match="repeat:4 would repeat moving-mini"):
        place_time_first(load_forward("repeat:4", None), "repeat:4", mini)

    def own(module: nn.Module, x: Any) -> Any:
        return module(x.transpose(0, 1))

    assert place_time_first(own, "file.py:own", mini) is own
