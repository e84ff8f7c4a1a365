"""Data of a function of one's own: named splits, and a part that is set aside."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from snnprune.data import Augmentation, DataOptions, DataSet, open_data
from snnprune.errors import InputError

HOLD_OUT = DataOptions(hold_out=0.25, seed=3)


def opened(
    made: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> DataSet:
    """The data set of a function that lies in a file."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("def data(*args, **kwargs): return made(*args, **kwargs)\n", "utf-8")
    from snnprune.plugins.user_code import load_object

    module_function = load_object("own.py:data", field="")
    module_function.__globals__["made"] = made
    if "split" in made.__code__.co_varnames[: made.__code__.co_argcount]:
        Path("own.py").write_text("def data(split): return made(split)\n", "utf-8")
        load_object("own.py:data", field="").__globals__["made"] = made
    return open_data("own.py:data", options=DataOptions(**options))


Opening = Callable[..., DataSet]


@pytest.fixture
def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opening:
    return lambda made, **options: opened(made, tmp_path, monkeypatch, **options)


X, Y = torch.arange(40.0).view(40, 1), torch.arange(40) % 3


def numbers(split: Any, batch_size: int = 8) -> list[float]:
    """Which samples a split has, by their one value."""
    return [float(v) for x, _ in split.batches(batch_size) for v in x.flatten()]


def shuffling() -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 8, shuffle=True)


def in_order() -> list[tuple[Tensor, Tensor]]:
    return list(zip(X.split(8), Y.split(8), strict=True))


def drawn_up() -> Iterator[tuple[Tensor, Tensor]]:
    yield from in_order()


@pytest.mark.parametrize("made", [shuffling, in_order, drawn_up])
def test_what_is_set_aside_is_never_trained_on(made: Any, opening: Opening) -> None:
    data = opening(made, hold_out=0.25, seed=3)
    kept, aside = set(numbers(data.train)), set(numbers(data.validation))
    assert kept | aside == set(range(40))
    assert not kept & aside
    assert len(aside) in (8, 10)  # whole batches, or a quarter of the samples
    for epoch in range(3):  # also where each pass shuffles anew
        pairs = data.train.shuffle(8, key=(epoch,), device="cpu", augment=Augmentation())  # type: ignore[union-attr]
        assert {float(v) for x, _ in pairs for v in x.flatten()} == kept
        assert set(numbers(data.validation)) == aside
    assert (data.measured, data.held_out) == ("validation", 0.25)
    assert set(numbers(data.given)) == set(range(40))


def test_the_part_depends_on_the_seed_alone(opening: Opening) -> None:
    first, again, other = (opening(shuffling, hold_out=0.25, seed=seed) for seed in (3, 3, 4))
    assert numbers(first.validation) == numbers(again.validation)
    assert set(numbers(first.validation)) != set(numbers(other.validation))


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


class Later:
    """Batches of which the first is always the same and others are not."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        turned = torch.cat([X[:8], X[8:].roll(8 * self.passes, 0)])
        yield from zip(turned.split(8), Y.split(8), strict=True)


def turning() -> Later:
    return Later()


UNDIVIDED = {
    "its data set cannot be indexed": lambda: DataLoader(Endless(), 8),
    "it gives one batch": lambda: [(X, Y)],
    "it gives other batches on every pass": lambda: ((torch.rand(4, 1), None) for _ in range(5)),
    "it gives other batches on every pass, not in its first": turning,
    "it gives the same batch more than once": lambda: [*in_order(), in_order()[0]],
}


@pytest.mark.parametrize("case", UNDIVIDED)
def test_what_cannot_be_divided_stays_whole_and_says_why(case: str, opening: Opening) -> None:
    data = opening(UNDIVIDED[case], hold_out=0.25)
    why = case.removesuffix(", not in its first")
    assert (data.validation, data.test, data.measured) == (None, None, "train")
    assert data.undivided == why
    assert why in data.doubts[0]
    assert "training samples" in data.doubts[0]


class EveryOther(Sampler[int]):
    """A sampler of one's own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(0, 40, 2))

    def __len__(self) -> int:
        return 20


def sampled(sampler: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 8, sampler=sampler)


SAMPLERS: dict[str, Callable[[], Any]] = {
    "with replacement": lambda: RandomSampler(X, replacement=True, num_samples=80),
    "weighted": lambda: WeightedRandomSampler([1.0] * 20 + [0.0] * 20, 60),
    "a part": lambda: SubsetRandomSampler(range(30)),
    "a part in order": lambda: SequentialSampler(range(30)),
    "a part at random": lambda: RandomSampler(range(30)),
    "a list": lambda: list(range(5, 25)),
    "of one's own": EveryOther,
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_goes_on_without_what_is_set_aside(kind: str, opening: Opening) -> None:
    sampler = SAMPLERS[kind]()
    data = opening(lambda: sampled(sampler), hold_out=0.25)
    aside = numbers(data.validation)
    assert len(aside) == len(set(aside)) > 1
    may = {int(v) for _ in range(20) for v in sampler}
    assert set(aside) < may
    reached: set[float] = set()
    counts = set()
    for epoch in range(20):
        pairs = data.train.shuffle(8, key=(epoch,), device="cpu", augment=Augmentation())  # type: ignore[union-attr]
        given = [float(v) for x, _ in pairs for v in x.flatten()]
        assert not {*given} & {*aside}
        reached |= set(given)
        counts.add(len(given))
    assert reached == may - set(aside)
    assert len(counts) == 1
    assert data.train.steps(8) == -(-counts.pop() // 8)  # type: ignore[union-attr]


class WithoutEnd:
    """A sampler that a trainer breaks off by itself."""

    def __init__(self, most: int) -> None:
        self.given, self.most = 0, most

    def __iter__(self) -> Iterator[int]:
        while True:
            self.given += 1
            assert self.given <= self.most
            yield self.given % 40


@pytest.mark.slow
def test_a_sampler_without_an_end_is_refused_after_a_million_indices(opening: Opening) -> None:
    sampler = WithoutEnd(1_000_008)  # batches of 8 are taken whole
    with pytest.raises(InputError) as caught:
        opening(lambda: sampled(sampler), hold_out=0.25)
    assert caught.value.message == (
        "its WithoutEnd gives more than 1,000,000 indices for a data set of 40"
    )
    assert "give the sampler an end" in str(caught.value.hint)
    assert sampler.given > 1_000_000


def test_batches_of_a_sampler_of_the_user_s_are_divided_by_samples(opening: Opening) -> None:
    batches = BatchSampler(SubsetRandomSampler(range(30)), 5, drop_last=False)
    data = opening(lambda: DataLoader(TensorDataset(X, Y), batch_sampler=batches), hold_out=0.2)
    kept, aside = numbers(data.train), numbers(data.validation)
    assert sorted([*kept, *aside]) == list(range(30))
    assert [len(x) for x, _ in data.train.batches(1)] == [5, 5, 5, 5, 3]  # type: ignore[union-attr]


def test_what_is_set_aside_is_not_trained_on_under_another_index(opening: Opening) -> None:
    half = Subset(TensorDataset(X, Y), range(20))
    data = opening(lambda: DataLoader(ConcatDataset([half, half]), 8, shuffle=True), hold_out=0.25)
    kept, aside = set(numbers(data.train)), set(numbers(data.validation))
    assert not kept & aside
    assert kept | aside == set(range(20))


def test_copies_among_what_is_set_aside_are_told(opening: Opening) -> None:
    twice = TensorDataset(torch.cat([X, X]), torch.cat([Y, Y]))
    data = opening(lambda: DataLoader(twice, 8, shuffle=True), hold_out=0.25)
    told = r"\d+ of the 20 validation samples looked at are training samples too"
    assert re.fullmatch(told, data.overlaps[0])
    assert opening(shuffling, hold_out=0.25).overlaps == ()


def test_parts_of_one_data_set_by_their_samplers_are_apart(opening: Opening) -> None:
    whole = TensorDataset(X, Y)

    def part(indices: range) -> DataLoader[Any]:
        return DataLoader(whole, 8, sampler=SubsetRandomSampler(indices))

    data = opening(lambda: {"train": part(range(30)), "test": part(range(30, 40))})
    assert data.overlaps == ()
    with pytest.raises(InputError, match="8 of the 10 test samples looked at are training samples"):
        opening(lambda: {"train": part(range(30)), "test": part(range(22, 32))})


class Guarded(TensorDataset):
    """Whose samples from 30 on are nobody's to read."""

    def __getitem__(self, index: int) -> Any:
        assert index < 30
        return super().__getitem__(index)


def test_no_sample_is_read_that_no_sampler_gives(opening: Opening) -> None:
    whole = Guarded(X, Y)

    def part(indices: range) -> DataLoader[Any]:
        return DataLoader(whole, 8, sampler=SubsetRandomSampler(indices))

    data = opening(lambda: {"train": part(range(20)), "test": [(X[20:28], Y[20:28])]})
    assert data.overlaps == ()
    data = opening(lambda: part(range(30)), hold_out=0.2)
    assert len(numbers(data.train)) == 24


def test_no_part_ends_in_a_batch_of_one(opening: Opening) -> None:
    data = opening(lambda: DataLoader(TensorDataset(X, Y), 10, shuffle=True), hold_out=0.27)
    sizes = [len(x) for split in (data.train, data.validation) for x, _ in split.batches(10)]  # type: ignore[union-attr]
    assert sum(sizes) == 40
    assert 1 not in sizes


def test_the_same_images_under_two_names_are_refused(opening: Opening) -> None:
    with pytest.raises(InputError, match="40 of the 40 test samples looked at are training") as at:
        opening(lambda: {"train": shuffling(), "test": shuffling()})
    assert at.value.field == "--data"
    with pytest.raises(InputError, match="8 of the 8 test samples looked at are validation"):
        opening(lambda: {**named("train", "validation"), "test": named("validation")["validation"]})


def test_some_images_in_two_splits_are_told(opening: Opening) -> None:
    mixed = [(torch.cat([X[:2], X[30:]]), torch.zeros(12).long())]
    data = opening(lambda: {"train": in_order()[:3], "test": mixed})
    told = "2 of the 12 test samples looked at are training samples too"
    assert data.overlaps == (told,)
    assert data.doubts == [told]


def named(*names: str) -> dict[str, Any]:
    parts = {"train": slice(0, 24), "validation": slice(24, 32), "test": slice(32, 40)}
    return {name: [(X[parts[name]], Y[parts[name]])] for name in names}


@pytest.mark.parametrize(
    ("names", "measured"),
    [(("train", "validation", "test"), "test"), (("train", "test"), "test"), (("train",), "train")],
)
def test_a_dict_names_its_splits(names: tuple[str, ...], measured: str, opening: Opening) -> None:
    data = opening(lambda: named(*names), hold_out=0.25)
    assert data.measured == measured
    assert numbers(data.train) == list(range(24))
    assert [numbers(data.of(name)) for name in names] == [
        [float(v) for v in named(name)[name][0][0]] for name in names
    ]


def test_a_function_may_take_the_split(opening: Opening) -> None:
    asked: list[str] = []

    def by(split: str) -> Any:
        asked.append(split)
        return named("train", "test").get(split)

    data = opening(by)
    assert asked == ["train", "validation", "test"]
    assert data.validation is None
    assert numbers(data.test) == list(range(32, 40))
    assert data.doubts == []


def test_an_unknown_name_is_refused(opening: Opening) -> None:
    with pytest.raises(InputError, match="gives 'tset'") as caught:
        opening(lambda: {"train": in_order(), "tset": in_order()})
    assert caught.value.hint == "did you mean test?"


def test_a_dict_without_training_images_is_refused(opening: Opening) -> None:
    with pytest.raises(InputError, match="gives no train samples"):
        opening(lambda: {"test": in_order()})


def test_tensors_may_have_their_own_test_and_validation(tmp_path: Path) -> None:
    x = torch.rand(12, 3)
    held = {"x": x, "y": torch.zeros(12), "x_test": x[:4] + 1, "x_validation": x[4:6] + 1}
    held = {key: value.long() if key == "y" else value for key, value in held.items()}
    torch.save(held, tmp_path / "t.pth")
    data = open_data(f"tensors:{tmp_path / 't.pth'}", options=HOLD_OUT)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 2, 4]  # type: ignore[arg-type]
    torch.save({"x": x, "y_test": torch.zeros(4).long()}, tmp_path / "t.pth")
    with pytest.raises(InputError, match="has no x_test"):
        open_data(f"tensors:{tmp_path / 't.pth'}", options=HOLD_OUT)


def test_tensors_without_any_have_a_part_set_aside(tmp_path: Path) -> None:
    torch.save({"x": torch.rand(12, 3)}, tmp_path / "t.pth")
    data = open_data(f"tensors:{tmp_path / 't.pth'}", options=HOLD_OUT)
    assert [len(split) for split in (data.train, data.validation, data.given)] == [9, 3, 12]  # type: ignore[arg-type]
    assert data.test is None


WHOLE = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("kind", WHOLE)
def test_labels_of_any_whole_type_in_numpy_and_torch(kind: str, opening: Opening) -> None:
    from snnprune.measure.evaluation import check_labels

    x, y = X.numpy(), (Y.numpy() % 3).astype(kind)
    data = opening(lambda: [(x[:8], y[:8]), [torch.tensor(x[8:]), torch.from_numpy(y[8:])]])
    found = list(data.train.batches(8))  # type: ignore[union-attr]
    scores = torch.zeros(40, 300)  # more classes than int8 has numbers
    labels = torch.cat([check_labels(pair[1], scores) for pair in found if pair[1] is not None])
    assert torch.equal(labels, Y % 3)
    assert all(pair[0].dtype == torch.float32 for pair in found)


def test_lists_and_arrays_are_batches(opening: Opening) -> None:
    double = np.random.default_rng(0).random((4, 3))
    data = opening(lambda: [(double, [0, 1, 2, 0]), ([[1.0, 2.0], [3.0, 4.0]], [1, 0]), double])
    (x, y), (a, b), (alone, none) = data.train.batches(8)  # type: ignore[union-attr]
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.tensor(double).float())
    assert (y.tolist(), b.tolist(), a.tolist()) == ([0, 1, 2, 0], [1, 0], [[1, 2], [3, 4]])
    assert none is None
    assert torch.equal(alone, x)


def test_a_ragged_list_is_refused_in_a_line(opening: Opening) -> None:
    with pytest.raises(InputError, match="a list in a batch is no tensor"):
        list(opening(lambda: [([[1.0], [2.0, 3.0]], [0, 1])]).train.batches(8))  # type: ignore[union-attr]
