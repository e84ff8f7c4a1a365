"""Labels that are no classes: named at once, and no memory is taken by their size."""

import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import save_file

Run = Callable[..., subprocess.CompletedProcess[str]]
OWN = """
import torch
from snnprune.models.networks import conv_snn

X = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def net():
    return conv_snn(in_channels=1, size=6, classes=2, width=4, depth=2, time_steps=2)


def of(y):
    return list(zip(X.split(4), y.split(4)))


def huge():
    return of(torch.full((16,), 2**40))


def negative():
    return of(torch.full((16,), -1))


def largest():
    return of(torch.full((16,), 2**63 - 1))


def unsigned():
    return of(torch.full((16,), 2**63 + 5, dtype=torch.uint64))


def fractions():
    return of(torch.full((16,), 0.5))


def half_of_them():
    return [(torch.cat([X[:4], X[4:8]]), torch.tensor([0, 1, 0, 1]))] * 2


def half_of_the_later_ones():
    whole = [(X[:8], torch.arange(8) % 2)]
    return whole + [(X[8:].roll(shift, -1), torch.arange(4) % 2) for shift in range(4)]


def nothing(pruned):
    return None


def fewer(pruned):
    return {key: mask & False for key, mask in pruned.masks.items()}
"""
MORE = {
    "calibrate": ("-o", "out.safetensors"),
    "prune": ("--sparsity", "0.5", "-o", "out.safetensors"),
    "eval": (),
    "score": (),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `own.py` and a checkpoint of its network."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    names: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(OWN, names)
    save_file(names["net"]().state_dict(), "model.safetensors")
    return tmp_path


def on(run: Run, command: str, data: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = ("--model", "own.py:net", "--data", data, *MORE[command], *more)
    return run(command, "model.safetensors", *words)


def training_on(run: Run, data: str) -> subprocess.CompletedProcess[str]:
    Path("recipe.yaml").write_text(
        "model: {name: conv-snn, args: {in_channels: 1, size: 6, classes: 2, width: 4, depth: 2,"
        " time_steps: 2}}\ndata: {name: tensors}\n"
        "training: {epochs: 1, batch_size: 4, learning_rate: 0.05}\n"
    )
    name = ("--set", f"data.name={data}", "--set", "data.validation=0")
    return run("train", "--recipe", "recipe.yaml", *name, "--out", "run")


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("huge", "label 1099511627776 for a network of 2 classes"),
        ("negative", "label -1 for a network of 2 classes"),
        ("largest", "label 9223372036854775807 for a network of 2 classes"),
        ("unsigned", "for a network of 2 classes"),
        ("fractions", "type torch.float32. expected one whole number per sample"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "prune", "train"])
def test_a_label_of_ones_own_that_is_no_class_is_named(
    command: str, name: str, words: str, place: Path, run: Run
) -> None:
    data = f"own.py:{name}"
    done = training_on(run, data) if command == "train" else on(run, command, data)
    assert_one_line(done, 3, words)
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize(
    ("label", "dtype", "words"),
    [
        (2**40, torch.int64, "label 1099511627776 is the number of no class"),
        (2**63 + 5, torch.uint64, "label 9223372036854775813 is the number of no class"),
        (-1, torch.int64, "label -1 is outside"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "calibrate", "prune", "train"])
def test_a_label_in_a_file_that_is_no_class_is_named_before_memory_is_taken_for_it(
    command: str, label: int, dtype: torch.dtype, words: str, place: Path, run: Run
) -> None:
    y = torch.full((16,), label, dtype=dtype)
    save_file({"x": torch.rand(16, 1, 6, 6), "y": y}, "x.safetensors")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = "tensors:x.safetensors"
    done = training_on(run, data) if command == "train" else on(run, command, data)
    assert_one_line(done, 3, words)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kB
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize("name", ["half_of_them", "half_of_the_later_ones"])
@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("eval", ()),
        ("calibrate", ()),
        ("prune", ("--no-eval",)),
        ("prune", ("--no-eval", "--criterion", "magnitude", "--repair", "lsq")),
    ],
)
def test_fewer_labels_than_samples_are_refused_also_where_they_divide_them(
    command: str, more: tuple[str, ...], name: str, place: Path, run: Run
) -> None:
    done = on(run, command, f"own.py:{name}", *more)
    assert_one_line(done, 3, "(8, 1, 6, 6) with 4 labels", "give a label for each sample")
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize(("name", "gave"), [("nothing", "NoneType"), ("fewer", "other masks")])
def test_a_repair_of_ones_own_that_gives_no_masks_is_named(
    name: str, gave: str, place: Path, run: Run
) -> None:
    save_file({"x": torch.rand(16, 1, 6, 6), "y": torch.arange(16) % 2}, "x.safetensors")
    flags = ("--criterion", "magnitude", "--repair", f"own.py:{name}")
    done = on(run, "prune", "tensors:x.safetensors", *flags)
    assert_one_line(done, 3, "--repair", f"own.py:{name} returned {gave}", "expected the masks")
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize("flag", ["--test-data", "--eval-data"])
def test_other_images_that_cannot_be_had_or_used_are_not_passed_over(
    flag: str, place: Path, model_file: Path, run: Run
) -> None:
    out = ("--sparsity", "0.5", "-o", "out.safetensors")
    done = run("prune", "model.safetensors", flag, "os:system", *out)
    assert_one_line(done, 3, flag, "os:system is not used", "give --data too")
    done = run("prune", model_file, flag, "os:system", *out)
    assert_one_line(done, 3, flag, "os:system is of Python's standard library")
    assert not Path("out.safetensors").exists()
