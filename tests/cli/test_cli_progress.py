"""What people see of long work, on a terminal and in a log."""

import io
from collections.abc import Callable, Iterator

import pytest
import torch
from rich.console import Console

from snnprune.cli import progress as progress_module
from snnprune.cli.progress import ProgressBars, ProgressLines, Stage, Stages, render_bars
from snnprune.runtime import SILENT, Progress, read_peak_gpu_memory, read_peak_memory


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (progress_module, progress_module):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(
        progress_module, "read_peak_memory", lambda: None
    )  # tests of it say how much
    return clock


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


def lines_to(log: io.StringIO) -> ProgressLines:
    return ProgressLines(Console(file=log, width=80))


def stage(label: str, done: int, total: int | None, *, before: int = 0, since: float = 0) -> Stage:
    return Stage(label=label, total=total, done=done, before=before, start=since, block=False)


def shown(*given: Stage, text: str = "", now: float, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    label_width = max(len(one.label) for one in given)
    with console.capture() as capture:
        console.print(render_bars(given, text, now=now, width=width, label_width=label_width))
    return capture.get().splitlines()


def test_the_time_left_follows_from_what_this_process_did_and_not_from_what_was_done_before() -> (
    None
):
    resumed = stage("run", 9_100, 10_000, before=9_000, since=50)
    assert resumed.left(now=70) == 180  # 100 items in 20 s, 900 to go
    assert stage("run", 9_000, 10_000, before=9_000).left(now=70) is None
    assert stage("run", 5, None).left(now=70) is None


def test_a_block_counts_the_items_of_what_lies_in_it_once(clock: Clock) -> None:
    found = Stages()
    with found.entered("run", total=10, done=2, block=True) as run:
        with (
            found.entered("round", total=3, block=True) as part,
            found.entered("outer", total=2) as outer,
            found.entered("inner", total=9) as inner,
        ):
            found.advance(inner)
            found.advance(outer)
            assert (run.done, part.done, outer.done, inner.done) == (3, 1, 1, 1)
        with found.entered("next", total=1):
            assert [one.label for one in found.shown] == ["run", "next"]
    assert found.open == []


def test_a_stage_that_is_closed_late_ends_no_other(clock: Clock) -> None:
    found = Stages()
    with found.entered("run", total=9, block=True):
        late = found.entered("left by a break", total=3)
        late.__enter__()
        found._leave(found.open[1])
        with found.entered("next", total=3):
            late.__exit__(None, None, None)
            assert [one.label for one in found.open] == ["run", "next"]


@pytest.mark.parametrize("width", [80, 200])
def test_three_bars_stand_one_below_the_other_with_the_time_left(width: int) -> None:
    rows = shown(
        stage("run", 9_030, 12_000, before=9_000),
        stage("sf-imp-1, round 3/15", 30, 60),
        stage("sf-imp-1, round 3/15, epoch 9/20", 7, 30),
        text="loss 0.410, accuracy 85.0%",
        now=90,
        width=width,
    )
    assert [row[:32].rstrip() for row in rows[:3]] == [
        "run",
        "sf-imp-1, round 3/15",
        "sf-imp-1, round 3/15, epoch 9/20",
    ]
    assert [row.rstrip()[-33:].lstrip("━╸╺ ") for row in rows[:3]] == [
        "9,030/12,000 0:01:30 2:28:30 left",
        "30/60 0:01:30 0:01:30 left",
        "7/30 0:01:30 0:04:56 left",
    ]
    assert len({len(row.rstrip()) for row in rows[:3]}) == 1
    assert max(len(row) for row in rows) <= width
    assert rows[3].rstrip() == "loss 0.410, accuracy 85.0%"


@pytest.mark.parametrize("width", [1, 20, 40])
def test_a_narrow_terminal_gets_no_more_lines_and_none_too_long(width: int) -> None:
    rows = shown(stage("run", 1, 9), stage("epoch", 1, None), text="loss 0.4", now=9, width=width)
    assert len(rows) == 3
    assert max(map(len, rows)) <= width


def drawn(work: Callable[[Progress, Console], None]) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    work(ProgressBars(console), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_labels_and_notes_are_no_markup_and_reach_the_terminal_escaped() -> None:
    def work(bars: Progress, _: Console) -> None:
        with bars.within("[bold]run\x1b]0;", total=1):
            for _item in bars.track([1], label="[/]\x1b[31m"):
                bars.note("\x1b[2Jnote [red]")

    text = drawn(work)
    assert "[bold]run\\x1b]0;" in text
    assert "[/]\\x1b[31m" in text
    assert "\\x1b[2Jnote [red]" in text
    assert "\x1b[31m" not in text


def test_what_is_announced_stays_on_one_line_above_the_bars_and_is_no_markup() -> None:
    long = "[red]\x1b[31m" + 100 * "x"

    def work(bars: Progress, _: Console) -> None:
        bars.announce(long)
        for _item in bars.track([1], label="run"):
            bars.announce("meanwhile")

    text = drawn(work)
    assert "[red]\\x1b[31m" + 100 * "x" + "\n" in text
    assert "meanwhile\n" in text


def test_a_log_gets_what_is_announced_at_once(log: io.StringIO) -> None:
    progress = lines_to(log)
    progress.announce("about [an] hour")
    assert log.getvalue() == "about [an] hour\n"


def test_a_line_said_meanwhile_stays_whole_and_the_bars_are_gone_at_the_end() -> None:
    def work(bars: Progress, console: Console) -> None:
        with bars.within("run", total=2):
            for _ in bars.track([1, 2], label="epoch"):
                console.print("somebody says this")

    text = drawn(work)
    assert text.count("somebody says this\n") == 2
    assert text.endswith("\x1b[2K")  # the last thing done is to clear a line
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # one display, cursor back


def test_a_log_gets_a_line_now_and_then_with_how_long_the_run_will_take(
    clock: Clock, log: io.StringIO
) -> None:
    progress = lines_to(log)
    with progress.within("run", total=100, done=90):
        for item in progress.track(range(6), label="epoch 2/2", total=6):
            progress.note(f"loss {item}")
            clock.now += 10
    assert log.getvalue().splitlines() == [
        "run: 92 of 100, 0:00:20, 0:01:20 left; epoch 2/2: 2 of 6, 0:00:20, 0:00:40 left, loss 1",
        "run: 94 of 100, 0:00:40, 0:01:00 left; epoch 2/2: 4 of 6, 0:00:40, 0:00:20 left, loss 3",
        "run: 96 of 100, 0:01:00, 0:00:40 left; epoch 2/2: 6 of 6, 0:01:00, 0:00:00 left, loss 5",
        "run: done, 96 of 100, 0:01:00, loss 5",
    ]


def test_a_log_of_two_days_stays_short(clock: Clock, log: io.StringIO) -> None:
    progress, epochs = lines_to(log), 960
    with progress.within("run", total=epochs * 18):
        for epoch in range(epochs):
            for _ in progress.track(range(18), label=f"epoch {epoch}", total=18):
                clock.now += 10
    assert 500 < len(log.getvalue().splitlines()) < 1000


def test_work_outside_a_block_tells_its_end_at_once(clock: Clock, log: io.StringIO) -> None:
    for _ in lines_to(log).track("abc", label="calibrating"):
        clock.now += 0.5
    assert log.getvalue() == "calibrating: done, 3 of 3, 1.5 s\n"


def failing(progress: Progress) -> None:
    with progress.within("run", total=2):
        for item in progress.track([0], label="epoch"):
            1 / item


def batches(clock: Clock, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 50 images, time first, a second each."""
    for _ in range(count):
        clock.now += 1
        yield torch.zeros(4, 50, 2), torch.zeros(50)


def test_batches_tell_images_a_second_and_all_work_its_memory(
    clock: Clock, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "read_peak_memory", lambda: 1_234_000_000)
    progress = lines_to(log)
    list(progress.track(batches(clock, 3), label="calibrating", total=3))
    list(progress.track(range(2), label="fitting", total=2))
    first, second = log.getvalue().splitlines()
    assert first == "calibrating: done, 3 of 3, 3.0 s, 50 samples/s, 1.2 GB"
    assert second == "fitting: done, 2 of 2, 0.0 s, 1.2 GB"


def test_a_note_that_tells_images_a_second_is_not_told_again(
    clock: Clock, log: io.StringIO
) -> None:
    progress = lines_to(log)
    for _ in progress.track(batches(clock, 2), label="epoch", total=2):
        progress.note("loss 1.0, 51 samples/s")
    assert log.getvalue() == "epoch: done, 2 of 2, 2.0 s, loss 1.0, 51 samples/s\n"


def test_the_memory_of_a_gpu_comes_before_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress_module, "read_peak_memory", lambda: 9_000_000_000)
    monkeypatch.setattr(progress_module, "read_peak_gpu_memory", lambda: 2_500_000_000)
    assert progress_module.format_memory() == "2.5 GB on the GPU"


def test_memory_is_that_of_this_process_and_no_gpu_is_asked_for() -> None:
    assert (read_peak_memory() or 0) > 50_000_000
    assert read_peak_gpu_memory() is None


@pytest.mark.parametrize(
    ("item", "images"),
    [
        (torch.zeros(8, 3), 8),
        ((torch.zeros(8, 3), None), 8),
        ((torch.zeros(4, 8, 3), torch.zeros(8)), 8),
        ([torch.zeros(8, 3), torch.zeros(8)], 8),
        ("text", 0),
        (7, 0),
        (("plan", 0.5), 0),
        (torch.zeros(()), 0),
    ],
    ids=("x", "x without y", "time first", "list", "text", "number", "plan", "scalar"),
)
def test_images_are_counted_in_batches_of_any_form(item: object, images: int) -> None:
    assert progress_module.count_images(item) == images


def test_the_bars_go_when_the_work_fails() -> None:
    def work(bars: Progress, _: Console) -> None:
        with pytest.raises(ZeroDivisionError):
            failing(bars)

    assert "\x1b[?25h" in drawn(work)


def test_work_that_failed_is_not_called_done(clock: Clock, log: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(lines_to(log))
    assert log.getvalue() == ""


def test_a_loop_that_is_left_early_is_not_called_done(clock: Clock, log: io.StringIO) -> None:
    for _ in lines_to(log).track("abc", label="calibrating", total=3):
        break
    assert log.getvalue() == ""


def test_nobody_is_told_anything_when_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with SILENT.within("run", total=2):
        assert list(SILENT.track([1, 2], label="epoch")) == [1, 2]
        SILENT.note("loss")
        SILENT.announce("an hour")
    assert capsys.readouterr() == ("", "")
