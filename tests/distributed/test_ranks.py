"""What a rank knows without asking the others."""

import os
import signal
import threading
import time
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnprune.cli import commands
from snnprune.cli.commands import wait_to_speak
from snnprune.distributed.ranks import ALONE, Ranks, join_ranks
from snnprune.distributed.whole_batch import ReplicatedNetwork, synchronise_batchnorms
from snnprune.errors import InputError, PeerError, StoppedError, UsageError
from snnprune.runtime import ProcessRank, read_process_rank

Run = Callable[..., CompletedProcess[str]]


def of(size: int) -> list[Ranks]:
    return [Ranks(rank=rank, size=size, local_rank=rank) for rank in range(size)]


def as_process(patch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Pretend that torchrun started us."""
    settings = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost"}
    for name, value in settings.items():
        patch.setenv(name, str(value))


@given(samples=st.integers(1, 40), size=st.integers(1, 9))
def test_the_parts_of_a_batch_make_it_up_in_order(samples: int, size: int) -> None:
    x, y = torch.rand(samples, 2), torch.arange(samples)
    parts = [ranks.part(x, y) for ranks in of(size)]
    counted = [part for part in parts if part.counts]
    assert torch.equal(torch.cat([part.x for part in counted]), x)
    assert torch.equal(torch.cat([part.y for part in counted]), y)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert [part.share * samples for part in counted] == pytest.approx([len(p.y) for p in counted])


def test_a_rank_without_samples_gets_one_that_does_not_count() -> None:
    x, y = torch.rand(2, 3), torch.tensor([7, 8])
    part = of(3)[2].part(x, y)
    assert (part.share, part.counts) == (0, False)
    assert torch.equal(part.x, x[:1])
    assert torch.equal(part.y, y[:1])


def test_events_are_parted_along_their_samples() -> None:
    events, y = torch.rand(4, 3, 2), torch.arange(3)  # (T, N, ...)
    first, second = (ranks.part(events, y) for ranks in of(2))
    assert torch.equal(torch.cat([first.x, second.x], 1), events)
    assert first.x.shape == (4, 2, 2)


@given(batches=st.integers(0, 30), size=st.integers(1, 6))
def test_every_batch_is_dealt_to_one_rank(batches: int, size: int) -> None:
    dealt = [list(ranks.deal(range(batches))) for ranks in of(size)]
    assert sorted(number for mine in dealt for number in mine) == list(range(batches))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_alone_everything_is_as_it_was() -> None:
    values = [1, 2.5]
    tensor = torch.rand(2)
    assert ALONE.total(values) == values
    assert ALONE.share(tensor) is tensor
    assert ALONE.by_first(lambda: tensor) is tensor
    assert ALONE.gather(tensor)[0] is tensor
    assert ALONE.any(True)
    assert not ALONE.any(False)


def test_alone_a_batchnorm_and_its_gradient_are_torchs_own_to_the_bit() -> None:
    x = torch.rand(5, 3)
    found = []
    for ranks in (None, ALONE):
        norm = torch.nn.BatchNorm1d(3)
        if ranks is None:
            norm(x).square().sum().backward()
        else:
            with synchronise_batchnorms(ranks):
                copies = ReplicatedNetwork(norm, norm, ranks, x)
                copies.backward(copies(x).square().sum())
        found.append({**norm.state_dict(), "grad": norm.weight.grad})
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"])
def test_without_all_that_torchrun_sets_a_process_is_alone(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_process(monkeypatch, 1, 2)
    assert read_process_rank() == ProcessRank(rank=1, size=2, local_rank=1)
    monkeypatch.delenv(missing)
    assert read_process_rank() == ProcessRank()


def test_one_process_of_torchrun_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    as_process(monkeypatch, 0, 1)
    with join_ranks("cpu") as ranks:
        assert ranks == ALONE
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("device", "hint"),
    [("cuda:1", "a GPU of its own"), ("mps", "without torchrun"), ("cuda", "--device cpu")],
)
def test_a_device_that_processes_cannot_share_is_refused(
    device: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_process(monkeypatch, 7, 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UsageError, match=hint), join_ranks(device):
        pass


@pytest.mark.parametrize("command", ["prune", "score", "inspect", "demo"])
def test_a_command_that_cannot_be_shared_is_refused(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_process(monkeypatch, 0, 2)
    done = run(command, "model.safetensors")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {command} runs in one process. start it without torchr")


def test_the_first_tells_a_fault_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 1e9)
    assert wait_to_speak(InputError("no such file"))
    as_process(monkeypatch, 0, 2)
    assert wait_to_speak(InputError("no such file"))


def test_another_tells_it_when_nobody_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    as_process(monkeypatch, 1, 2)
    monkeypatch.setattr(commands, "PATIENCE", 0.1)
    begin = time.monotonic()
    assert wait_to_speak(InputError("no such file"))
    assert time.monotonic() - begin > 0.1


@pytest.mark.parametrize(
    ("rank", "error"),
    [(1, InputError("no such file")), (0, PeerError("another ended")), (1, PeerError("ended"))],
)
def test_who_is_ended_while_it_waits_is_silent(
    rank: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_process(monkeypatch, rank, 2)
    monkeypatch.setattr(commands, "PATIENCE", 30)
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert not wait_to_speak(error)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stop_that_all_agreed_on_is_told_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 1e9)
    stopped = StoppedError("terminated in epoch 2", exit_code=143)
    for rank, speaks in ((0, True), (1, False)):
        as_process(monkeypatch, rank, 2)
        assert wait_to_speak(stopped) == speaks


def test_only_the_first_shows_a_result(
    run: Run, model_file: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "SHARING", ("inspect",))
    shown = {}
    for rank in (0, 1):
        as_process(monkeypatch, rank, 2)
        shown[rank] = [
            (done.returncode, bool(done.stdout), bool(done.stderr))
            for done in (run("inspect", model_file), run("inspect", model_file, "--json"))
        ]
    assert shown[0] == [(0, True, False), (0, True, False)]
    assert shown[1] == [(0, False, False), (0, False, False)]
