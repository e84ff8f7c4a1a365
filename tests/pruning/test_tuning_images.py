"""The samples of tuning: mixed, mirrored and moved, held in memory or batch by batch."""

from collections import Counter

import pytest
import torch
from pruned_networks import made
from torch import Tensor

from snnprune.errors import UsageError
from snnprune.graph.forward import CountedForward, call_module
from snnprune.pruning.repair import tuning_images
from snnprune.pruning.repair.tuning_images import (
    BATCH,
    FLIP,
    SHIFT,
    SHIFTS,
    HeldSamples,
    Piece,
    find_sample_axis,
    hold_samples,
    iter_batches,
    require_augmentable,
)

COUNT = BATCH + 6


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def held(count: int = COUNT) -> HeldSamples:
    """Pictures (count, 1, 6, 6), each with its number in all pixels but for a ramp."""
    x = torch.arange(float(count)).view(-1, 1, 1, 1) + torch.linspace(0, 0.5, 36).view(1, 1, 6, 6)
    return HeldSamples(x=x, y=torch.arange(count), axis=0)


def join(pieces: list[Piece]) -> Tensor:
    return torch.cat([piece.x for piece in pieces])


def test_an_epoch_has_every_sample_once_with_its_label() -> None:
    samples = held()
    pieces = list(samples.iter_epoch(drawn(), ()))
    assert [piece.samples for piece in pieces] == [BATCH, 6]
    labels = torch.cat([piece.y for piece in pieces if piece.y is not None])
    assert sorted(labels.tolist()) == list(range(COUNT))
    assert labels.tolist() != list(range(COUNT))
    assert torch.equal(join(pieces), samples.x[labels])


def test_some_are_mirrored_and_known_by_their_place() -> None:
    samples = held()
    pieces = list(samples.iter_epoch(drawn(), (FLIP,)))
    both = torch.cat([samples.x, samples.x.flip(-1)])
    places = torch.cat([piece.places for piece in pieces if piece.places is not None])
    assert torch.equal(join(pieces), both[places])
    assert 20 < int((places >= COUNT).sum()) < 50
    assert sorted((places % COUNT).tolist()) == list(range(COUNT))


def test_each_is_moved_by_a_draw_of_its_own_and_borders_repeat() -> None:
    samples = held()
    moves = Counter[tuple[int, int]]()
    for piece in samples.iter_epoch(drawn(), (SHIFTS,)):
        assert piece.y is not None
        for moved, number in zip(piece.x, piece.y, strict=True):
            moves[find_move(samples.x[number, 0], moved[0])] += 1
    assert len(moves) > 15
    assert max(abs(by) for move in moves for by in move) == SHIFT


def find_move(before: Tensor, after: Tensor) -> tuple[int, int]:
    """By how much a picture was moved, looked for among all that may be."""
    rows, columns = torch.arange(6), torch.arange(6)
    for down in range(-SHIFT, SHIFT + 1):
        for right in range(-SHIFT, SHIFT + 1):
            y, x = (rows + down).clamp(0, 5), (columns + right).clamp(0, 5)
            if torch.equal(before[y][:, x], after):
                return down, right
    raise AssertionError("it is another picture")


def test_time_may_come_first() -> None:
    events = torch.rand(3, COUNT, 2, 4, 4)
    samples = HeldSamples(x=events, y=None, axis=1)
    pieces = list(samples.iter_epoch(drawn(), (FLIP, SHIFTS)))
    assert [piece.x.shape for piece in pieces] == [(3, BATCH, 2, 4, 4), (3, 6, 2, 4, 4)]
    (plain,) = (piece for piece in samples.iter_epoch(drawn(), ()) if piece.samples == 6)
    assert plain.places is not None
    assert torch.equal(plain.x, events[:, plain.places])


def test_samples_are_held_whole_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = made("linears"), torch.rand(8, 9)
    batches = [(x[:5], torch.arange(5)), (x[5:], torch.arange(5, 8))]
    found = hold_samples(network, batches)
    assert found is not None
    assert torch.equal(found.x, x)
    assert found.y is not None
    assert found.y.tolist() == list(range(8))
    assert hold_samples(network, []) is None
    assert hold_samples(network, [(x[:5], None), (x[5:, :4], None)]) is None
    square = torch.rand(4, 4, 2)
    assert hold_samples(network, [(square, torch.zeros(4).long())]) is None  # which is time?
    monkeypatch.setattr(tuning_images, "MEMORY", 8 * 9 * 4)
    assert hold_samples(network, batches) is not None
    monkeypatch.setattr(tuning_images, "MEMORY", 8 * 9 * 4 - 1)
    assert hold_samples(network, batches) is None


@pytest.mark.parametrize(
    ("axis", "always", "found"), [(0, True, 0), (1, True, 1), (1, False, None)]
)
def test_a_way_of_running_may_say_where_the_samples_of_all_batches_lie(
    axis: int, always: bool, found: int | None
) -> None:
    way = CountedForward(forward=call_module, axis=axis, always=always)
    network = made("linears").with_forward(way)
    assert find_sample_axis(network, torch.zeros(4, 4, 2), 4) == found


@pytest.mark.parametrize(
    ("shape", "samples", "found"),
    [((3, 4), 3, 0), ((3, 4), 4, 1), ((3, 4, 5), 5, None), ((1, 1), 1, 0), ((4,), 4, 0)],
)
def test_samples_lie_where_a_dimension_is_as_long(
    shape: tuple[int, ...], samples: int, found: int | None
) -> None:
    assert find_sample_axis(made("linears"), torch.zeros(shape), samples) == found


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 4), [torch.zeros(2, 1, 4, 4)]])
def test_what_is_no_picture_is_not_mirrored(x: object) -> None:
    require_augmentable(x, ())
    with pytest.raises(UsageError, match=r"--augment: needs pictures \(N, C, H, W\)"):
        require_augmentable(x, (FLIP,))
    require_augmentable(torch.zeros(2, 1, 4, 4), (FLIP,))
    require_augmentable(torch.zeros(3, 2, 1, 4, 4), (FLIP, SHIFTS))


def pieces(x: Tensor, y: Tensor | None) -> list[Piece]:
    return list(iter_batches(made("convolved"), [(x, y)], ("here",)))


def test_batches_are_mixed_and_cut_along_their_samples() -> None:
    x = torch.arange(COUNT).float().view(-1, 1).repeat(1, 3)
    found = pieces(x, None)
    assert [piece.samples for piece in found] == [BATCH, 6]
    mixed = join(found)
    assert not torch.equal(mixed, x)
    assert torch.equal(mixed[:, 0].sort().values, x[:, 0])
    events = x.T.contiguous()  # (T, N)
    found = pieces(events, torch.arange(COUNT))
    assert [piece.x.shape for piece in found] == [(3, BATCH), (3, 6)]
    for piece in found:
        assert piece.y is not None
        assert torch.equal(piece.x[0], piece.y.float())


@pytest.mark.parametrize("shape", [(4, 4, 2), (2, 2, 5), (70, 70)])
def test_as_many_steps_as_samples_are_not_mixed_up(shape: tuple[int, ...]) -> None:
    """(T, N) and (N, T) look alike, so that nothing may be moved."""
    events = torch.rand(shape)
    (found,) = pieces(events, torch.zeros(shape[0]).long())
    assert torch.equal(found.x, events)
    assert found.samples == shape[0]
