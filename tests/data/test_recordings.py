"""Public sets of events through tonic, on files in their true formats that are made here."""

import importlib.util
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from spikingjelly.datasets import utils as spikingjelly_utils

from snnprune.data import DataOptions, DataSet, open_data, recordings
from snnprune.data.events import EventSplit
from snnprune.data.recordings import SOURCES, cut_recording, number_steps
from snnprune.data.settings import EVENTS, EventSettings
from snnprune.errors import InputError

Array = np.ndarray[Any, Any]
EVENT = np.dtype([("t", np.int64), ("x", np.int64), ("y", np.int64), ("p", np.int64)])


def draw_events(count: int, side: int, seed: int, span: int = 300_000) -> Array:
    """Events in their order, as many of both polarities as chance has it."""
    draws = np.random.RandomState(seed)
    events = np.zeros(count, EVENT)
    events["t"] = np.sort(draws.randint(0, span, count))
    for field, below in (("x", side), ("y", side), ("p", 2)):
        events[field] = draws.randint(0, below, count)
    return events


def write_nmnist(path: Path, events: Array) -> None:
    """40 bits an event: x, y, polarity and 23 bits of time in microseconds, big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.zeros((len(events), 5), np.uint8)
    rows[:, 0], rows[:, 1] = events["x"], events["y"]
    rows[:, 2] = (events["p"] << 7) | (events["t"] >> 16)
    rows[:, 3], rows[:, 4] = (events["t"] >> 8) & 255, events["t"] & 255
    path.write_bytes(rows.tobytes())


def write_nmnist_set(root: Path) -> dict[str, Array]:
    written = {}
    for part, count in (("Train", 2), ("Test", 1)):
        for label in range(10):
            for number in range(count):
                name = f"{part}/{label}/{number:05}.bin"
                written[name] = draw_events(200 + label, 34, seed=10 * label + number)
                write_nmnist(root / "NMNIST" / name, written[name])
    return written


def write_gestures(root: Path) -> None:
    """As tonic has them: (E, 4), x, y, p and milliseconds, a file for each gesture of a user."""
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        folder = root / "DVSGesture" / part / "user01_fluorescent"
        folder.mkdir(parents=True)
        for label in range(11):
            events = draw_events(500, 128, seed=label, span=6000)
            np.save(
                folder / f"{label}.npy",
                np.stack([events["x"], events["y"], events["p"], events["t"]], 1),
            )


def write_spoken(path: Path, count: int, classes: int) -> list[tuple[Array, Array]]:
    """As SHD and SSC are: spikes/times in seconds and spikes/units, of uneven length; labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draws, written = np.random.RandomState(0), []
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
        for number in range(count):
            spikes = 50 + 10 * number
            times[number] = np.sort(draws.rand(spikes)).astype(np.float16)
            units[number] = draws.randint(0, 700, spikes).astype(np.uint16)
            written.append((times[number], units[number]))
        file["labels"] = (np.arange(count) % classes).astype(np.uint16)
        file["extra/keys"] = np.array([f"word {n}".encode() for n in range(classes)])
        file["extra/speaker"] = np.zeros(count, np.uint16)
    return written


STREAM = """<dv version="2.0"><node name="outInfo" path="/outInfo/">
<node name="0" path="/outInfo/0/"><attr key="compression" type="string">NONE</attr>
<attr key="typeIdentifier" type="string">EVTS</attr>
<node name="info" path="/outInfo/0/info/"><attr key="sizeX" type="int">128</attr>
<attr key="sizeY" type="int">128</attr></node></node></node></dv>"""


def make_flatbuffer(kind: bytes, table: int, body: bytes) -> bytes:
    """A FlatBuffer with its size before it; `table` is where in `body` its root is."""
    whole = struct.pack("<I", table + 8) + kind + body
    return struct.pack("<I", len(whole)) + whole


def write_aedat4(path: Path, events: Array) -> None:
    """One packet, uncompressed: a header with the streams, 16 bytes an event (t, x, y, on)."""
    text = STREAM.encode()
    # table: compression 0, no table of packets (-1), text; then one field, the vector of events
    header = struct.pack("<HHHHH6x", 10, 20, 4, 8, 16) + struct.pack("<iiqI", 16, 0, -1, 4)
    rows = np.zeros(len(events), "<i8,<i2,<i2,?,V3")
    for number, field in enumerate("txyp"):
        rows[f"f{number}"] = events[field]
    vector = struct.pack("<HHH2x", 6, 8, 4) + struct.pack("<iI4x", 8, 8)
    packet = make_flatbuffer(b"EVTS", 8, vector + struct.pack("<I", len(rows)) + rows.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"#!AER-DAT4.0\r\n"
        + make_flatbuffer(b"IOHE", 16, header + struct.pack("<I", len(text)) + text + b"\0")
        + struct.pack("<II", 0, len(packet))
        + packet
    )


@pytest.fixture(autouse=True)
def _small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a few recordings are whole here."""
    small = {name: replace(s, least=dict.fromkeys(s.least, 1)) for name, s in SOURCES.items()}
    monkeypatch.setattr(recordings, "SOURCES", small)


def opened(name: str, root: Path, **more: Any) -> DataSet:
    return open_data(name, options=DataOptions(root=root, **more))


def split_of(split: object) -> EventSplit:
    assert isinstance(split, EventSplit)
    return split


def test_nmnist_is_read_in_its_own_format_and_cut_as_by_spikingjelly(tmp_path: Path) -> None:
    written = write_nmnist_set(tmp_path)
    data = opened("nmnist:frames=4", tmp_path)
    assert (data.classes, data.channels, data.size, data.time_steps) == (10, 2, 34, 4)
    train = split_of(data.train)
    assert train.labels is not None
    assert train.labels.tolist() == [label for label in range(10) for _ in range(2)]
    for place, name in enumerate(sorted(name for name in written if name.startswith("Train"))):
        events = {field: written[name][field] for field in "txyp"}
        expected = spikingjelly_utils.integrate_events_by_fixed_frames_number(
            events, "number", 4, 34, 34
        )
        assert torch.equal(train.images[place].double(), torch.from_numpy(expected).double())
    assert int(split_of(data.test).images.sum()) == sum(range(200, 210))


@pytest.mark.parametrize("split_by", ["number", "time"])
def test_frames_and_bins_are_those_of_spikingjelly(split_by: str) -> None:
    events = draw_events(1003, 34, seed=5)
    cut = "frames" if split_by == "number" else "bins"
    ours = cut_recording(events, EventSettings(cut=cut, count=7, size=34), (34, 34), 2)
    fields = {field: events[field] for field in "txyp"}
    theirs = spikingjelly_utils.integrate_events_by_fixed_frames_number(fields, split_by, 7, 34, 34)
    assert np.array_equal(ours, theirs)


def test_windows_last_as_long_as_the_recording() -> None:
    times = np.array([500, 1400, 2499, 2500, 9999])
    steps, count = number_steps(times, EventSettings(cut="window", count=2, size=34))
    assert steps.tolist() == [0, 0, 0, 1, 4]
    assert count == 5


def test_smaller_frames_add_up_the_events_of_larger_ones() -> None:
    events = draw_events(400, 34, seed=1)
    whole = cut_recording(events, EventSettings(cut="frames", count=3, size=34), (34, 34), 2)
    half = cut_recording(events, EventSettings(cut="frames", count=3, size=17), (34, 34), 2)
    assert np.array_equal(half, whole.reshape(3, 2, 17, 2, 17, 2).sum((3, 5)))


def test_events_outside_of_the_sensor_are_refused() -> None:
    events = draw_events(4, 34, seed=1)
    events["x"][2] = 34
    with pytest.raises(InputError, match="an event outside of 34 places in x"):
        cut_recording(events, EventSettings(cut="frames", count=2, size=34), (34, 34), 2)


def test_more_events_of_a_place_than_a_byte_holds_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nmnist_set(tmp_path)
    many = draw_events(700, 34, seed=0)
    many["x"] = many["y"] = many["p"] = 1
    write_nmnist(tmp_path / "NMNIST" / "Train/3/00001.bin", many)
    train = split_of(opened("nmnist:frames=2", tmp_path).train)
    assert train.images[7, :, 1, 1, 1].tolist() == [350, 350]
    assert int(train.images[0].sum()) == 200


def test_gestures_and_spoken_digits_are_read(tmp_path: Path) -> None:
    write_gestures(tmp_path)
    gestures = opened("dvs-gesture:frames=4,size=32", tmp_path)
    assert (gestures.classes, gestures.size, gestures.time_steps) == (11, 32, 4)
    assert split_of(gestures.train).images.sum((1, 2, 3, 4)).tolist() == [500] * 11

    written = write_spoken(tmp_path / "SHD" / "shd_train.h5", 6, 20)
    write_spoken(tmp_path / "SHD" / "shd_test.h5", 3, 20)
    digits = opened("shd:bins=5", tmp_path)
    assert (digits.classes, digits.channels, digits.size, digits.time_steps) == (20, 700, None, 5)
    x, y = next(iter(split_of(digits.train).batches(6)))
    assert x.shape == (5, 6, 700)
    assert y is not None
    assert y.tolist() == [0, 1, 2, 3, 4, 5]
    for sample, (_, units) in zip(x.transpose(0, 1), written, strict=True):
        assert sample.sum(0).int().tolist() == np.bincount(units, minlength=700).tolist()


def test_recordings_of_cifar10_dvs_are_read_and_the_last_ones_are_for_tests(tmp_path: Path) -> None:
    written = {}
    for label, name in enumerate(("airplane", "automobile", "bird")):
        for number in (10, 2, 9):
            events = draw_events(300 + number, 128, seed=100 * label + number)
            write_aedat4(tmp_path / "CIFAR10DVS" / name / f"{number}.aedat4", events)
            written[label, number] = events
    data = opened("cifar10-dvs:frames=3", tmp_path)
    train, test = split_of(data.train), split_of(data.test)
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.labels.tolist() == [0, 1, 2]
    for label in range(3):
        assert int(test.images[label].sum()) == 310
        fields = {field: written[label, 10][field] for field in "txyp"}
        expected = spikingjelly_utils.integrate_events_by_fixed_frames_number(
            fields, "number", 3, 128, 128
        )
        assert np.array_equal(test.images[label].numpy(), expected)


@pytest.mark.slow
def test_a_recurrent_network_is_trained_and_pruned_on_spoken_digits(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    write_spoken(tmp_path / "SHD" / "shd_train.h5", 20, 20)
    write_spoken(tmp_path / "SHD" / "shd_test.h5", 20, 20)
    root, out = ("--data-root", str(tmp_path)), str(tmp_path / "run")
    model, pruned = f"{out}/model.safetensors", f"{out}/pruned.safetensors"
    small = ["model.args.width=6", "training.epochs=1", "data.name=shd:bins=6,size=70"]
    sets = [word for one in small for word in ("--set", one)]
    commands = (
        ("train", "--recipe", "shd", "--out", out, *sets, *root),
        ("inspect", f"{out}/model.safetensors", *root),
        ("prune", model, "--sparsity", "0.5", "--no-tune", *root, "--samples", "16", "-o", pruned),
    )
    for command in commands:
        done = run(*command)
        assert done.returncode == 0, done.stderr
    assert "1 spiking neuron over 6 time steps" in run(*commands[1]).stdout
    # without the recordings the file alone says what network it is of
    done = run("inspect", f"{out}/model.safetensors", "--data-root", str(tmp_path / "none"))
    assert "layers.0.recurrent" in done.stdout


def test_spoken_words_have_validation_recordings_of_their_own_and_lengths(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("valid", 3), ("test", 2)):
        write_spoken(tmp_path / "SSC" / f"ssc_{part}.h5", count, 35)
    data = opened("ssc:window=300,size=140", tmp_path)
    assert [len(split_of(data.of(name))) for name in ("train", "validation", "test")] == [5, 3, 2]
    assert split_of(data.train).sample_shape == (140,)
    assert data.name == "ssc:window=300,size=140"
    assert {x.shape[0] for x, _ in split_of(data.train).batches(2)} <= {3, 4}


def test_frames_are_kept_by_their_settings_and_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nmnist_set(tmp_path)
    first = split_of(opened("nmnist:frames=4", tmp_path).train).images
    kept = sorted(path.name for path in (tmp_path / "frames" / "nmnist").iterdir())
    assert kept == ["test-frames=4-size=34.safetensors", "train-frames=4-size=34.safetensors"]
    monkeypatch.setattr(recordings, "_open_recordings", None)  # nothing is read again
    assert torch.equal(split_of(opened("nmnist:frames=4", tmp_path).train).images, first)
    with pytest.raises(TypeError):
        opened("nmnist:frames=5", tmp_path)


def test_what_is_no_kept_frames_is_made_again(tmp_path: Path) -> None:
    write_nmnist_set(tmp_path)
    first = split_of(opened("nmnist", tmp_path).train).images
    place = tmp_path / "frames" / "nmnist" / "train-frames=8-size=34.safetensors"
    place.write_bytes(place.read_bytes()[:100])
    assert torch.equal(split_of(opened("nmnist", tmp_path).train).images, first)


def test_nothing_is_fetched_without_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("tonic.dataset.download_and_extract_archive", fetch)
    for name in ("nmnist", "dvs-gesture", "shd", "ssc"):
        with pytest.raises(InputError) as caught:
            opened(name, tmp_path)
        assert f"{name} is not there, looked for" in str(caught.value)
        assert "--download" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_download_fetches_by_tonic_and_a_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(url: str, *_: Any, **__: Any) -> None:
        asked.append(url)
        raise OSError("no connection")

    monkeypatch.setattr("tonic.dataset.download_and_extract_archive", fetch)
    with pytest.raises(InputError, match="shd cannot be downloaded: no connection"):
        opened("shd", tmp_path, download=True)
    assert asked == ["https://zenkelab.org/datasets/shd_train.h5.zip"]


def test_a_part_of_a_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nmnist_set(tmp_path)
    monkeypatch.setattr(recordings, "SOURCES", SOURCES)
    with pytest.raises(InputError, match="has 20 train recordings of 60,000"):
        opened("nmnist", tmp_path)


def test_without_tonic_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "tonic" else found(name, *rest),
    )
    with pytest.raises(InputError, match=r"nmnist is read with tonic.*snnprune\[events\]"):
        opened("nmnist", tmp_path)


def test_a_damaged_recording_is_named(tmp_path: Path) -> None:
    write_gestures(tmp_path)
    (tmp_path / "DVSGesture/ibmGestureTest/user01_fluorescent/4.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"recording \d+ is damaged") as caught:
        opened("dvs-gesture:size=16", tmp_path)
    assert "\n" not in str(caught.value)


def test_every_set_has_its_usual_settings_within_its_sensor() -> None:
    for name, source in SOURCES.items():
        assert EVENTS[name].usual.size == source.sensor[-1]


def test_the_last_tenth_of_each_class_of_cifar10_dvs_is_for_tests() -> None:
    labels = torch.arange(10).repeat_interleave(20)
    split = EventSplit(images=torch.arange(200).view(-1, 1, 1), labels=labels)
    parts = recordings._split_last_tenth(split)
    assert parts["test"].images.flatten().tolist() == [
        20 * label + number for label in range(10) for number in (18, 19)
    ]
    assert len(parts["train"]) == 180
