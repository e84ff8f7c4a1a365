"""What a loader may give, taken apart, copied and counted."""

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from snnprune.data.batches import (
    Batches,
    Pair,
    copy_batch,
    count_samples,
    describe_batch,
    guess_length,
    iter_tensors,
    map_tensors,
    read_pair,
)
from snnprune.errors import InputError
from snnprune.runtime import Silent

T = TypeVar("T")
X, Y, LENGTHS = torch.rand(4, 3, 2), torch.tensor([0, 1, 2, 0]), torch.tensor([3, 2, 2, 1])
Sample = namedtuple("Sample", ["events", "label"])


def same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize(
    ("batch", "y"), [(X, None), ((X,), None), ([X], None), ((X, None), None), ([X, Y], Y)]
)
def test_a_tensor_alone_or_with_its_labels_is_what_is_fed(batch: Any, y: Tensor | None) -> None:
    found = read_pair(batch)
    assert found is not None
    assert same(found.x, X)
    assert same(found.y, y)


@pytest.mark.parametrize(
    ("batch", "y"),
    [
        ((X, Y, LENGTHS), Y),
        ([X, Y, {"lengths": LENGTHS}], Y),
        (((X, LENGTHS), Y), Y),
        (({"events": X}, Y), Y),
        ((X, Y.float(), Y), None),
        ((X, Y[:, None], Y), None),
        ((X, Y > 0, Y), None),
        ({"x": X, "y": Y}, Y),
        ({"x": X, "label": Y}, Y),
        ({"x": X, "labels": Y}, Y),
        ({"x": X, "target": Y.int()}, Y.int()),
        ({"x": X, "targets": Y}, Y),
        ({"x": X, "y": Y.float(), "label": Y}, Y),
        ({"x": X, "lengths": LENGTHS}, None),
        (UserDict({"x": X, "y": Y}), Y),
        (Sample({"x": X}, Y), Y),
    ],
)
def test_another_batch_is_fed_whole_and_labels_are_found_where_they_evidently_are(
    batch: Any, y: Tensor | None
) -> None:
    found = read_pair(batch)
    assert found is not None
    assert found.x is batch
    assert same(found.y, y)


@pytest.mark.parametrize("batch", [3, "text", None, [], {}, ("x", "y"), {"x": [1, 2]}])
def test_what_has_no_tensor_is_no_batch(batch: object) -> None:
    assert read_pair(batch) is None


@pytest.mark.parametrize(
    "batch",
    [
        X,
        [X, Y],
        {"x": X, "deep": [{"y": (Y, "text", None, 3)}]},
        OrderedDict(b=X, a=Y),
        UserDict({"x": X}),
        Sample(X, Y),
    ],
)
def test_a_copy_has_the_same_form_and_shares_no_tensor(batch: Any) -> None:
    twin = copy_batch(batch)
    assert type(twin) is type(batch)
    assert describe_batch(twin) == describe_batch(batch)
    for mine, other in zip(iter_tensors(twin), iter_tensors(batch), strict=True):
        assert same(mine, other)
        assert mine.data_ptr() != other.data_ptr()
    assert {t.device.type for t in iter_tensors(copy_batch(batch, torch.device("meta")))} == {
        "meta"
    }
    assert all(t.device.type == "cpu" for t in iter_tensors(batch))


def test_what_moves_itself_is_asked_to() -> None:
    packed = pack_padded_sequence(X, LENGTHS, batch_first=True)
    twin = copy_batch((packed, Y), torch.device("cpu"))[0]
    assert isinstance(twin, PackedSequence)
    assert same(twin.data, packed.data)
    twin.data.zero_()
    assert packed.data.any()


def test_what_nobody_can_move_is_shared() -> None:
    things = object()
    assert copy_batch([X, things])[1] is things


def test_a_change_reaches_every_tensor_and_nothing_else() -> None:
    found = map_tensors(lambda t: t + 1, {"x": Y, "more": (Y, "text")})
    assert same(found["x"], Y + 1)
    assert same(found["more"][0], Y + 1)
    assert found["more"][1] == "text"


@pytest.mark.parametrize(
    ("x", "count"),
    [
        (X, 4),
        ({"events": torch.rand(7, 4, 3), "lengths": LENGTHS}, 4),  # time first
        ({"events": X, "mask": torch.ones(4, 3)}, 4),
        ([X, torch.tensor(3.0)], 4),
        ({"events": torch.rand(7, 4, 3), "mask": torch.ones(4, 7)}, None),
        ([LENGTHS, torch.ones(7)], None),
    ],
)
def test_samples_without_labels_are_counted_where_the_tensors_agree(
    x: Any, count: int | None
) -> None:
    assert guess_length(x) == count
    assert count_samples(x, torch.zeros(1)) == 1
    if count is not None:
        assert count_samples(x, None) == count
        return
    with pytest.raises(InputError, match=r"how many samples are in a (dict|list) of .* told"):
        count_samples(x, None)


def test_a_pair_is_two_names_for_a_batch() -> None:
    x, y = Pair(X, Y)
    assert x is X
    assert y is Y


def test_batches_are_gone_through_as_often_as_one_likes() -> None:
    begun: list[str] = []

    def begin() -> Iterator[Tensor]:
        begun.append("pass")
        yield from (X, Y)

    batches = Batches(begin=begin)
    assert not begun
    assert [list(batches), list(batches)] == [[X, Y], [X, Y]]
    assert begun == ["pass", "pass"]


def test_whoever_watches_batches_go_by_is_told_how_many_they_are() -> None:
    class Watcher(Silent):
        def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
            told.append((label, total))
            yield from items

    told: list[tuple[str, int | None]] = []
    for count in (2, None):
        batches = Batches(begin=lambda: [X, Y], count=count)
        assert list(batches.track(Watcher(), "counting")) == [X, Y]
    assert told == [("counting", 2), ("counting", None)]
