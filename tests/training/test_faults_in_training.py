"""What goes wrong in the middle of a run: how it ends, what it leaves, and that it goes on."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from snnprune.errors import convert_torch_error

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
FAULTY = Path(__file__).with_name("faulty.py")
EPOCHS, STEPS = 3, 3  # of 12 images in batches of 4, none set aside
RECIPE = """\
model: {{name: "{code}:model"}}
data: {{name: "{code}:{data}", validation: 0}}
training: {{epochs: 3, batch_size: 4, learning_rate: 0.1}}
imp: {{methods: [imp], sparsities: [0.5], rewind_epoch: 1}}
"""


@pytest.fixture
def asked(run: Run, tmp_path: Path) -> Run:
    """`asked("imp", data="batches")`: that command on the faulty network and batches."""
    return asking(run, tmp_path)


@pytest.fixture
def asked_of_a_process(process: Run, tmp_path: Path) -> Run:
    """The same in a process of its own, which alone is told of workers that die."""
    return asking(process, tmp_path)


def asking(run: Run, tmp_path: Path) -> Run:
    def ran(command: str, *flags: object, data: str = "batches") -> Done:
        recipe = tmp_path / "recipe.yaml"
        how = flags if "--resume" in flags else ("--recipe", recipe, *flags)
        if how is not flags:
            recipe.write_text(RECIPE.format(code=FAULTY, data=data))
        return run(command, *how, "--trust-recipe", "--out", tmp_path / "run", "-q")

    return ran


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr("snnprune.jobs.train.train.draw_run", lambda *_: [])


def told(done: Done) -> str:
    """The only line of stderr that is an error."""
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def undisturbed(run: Run, tmp_path: Path) -> Callable[[str], Path]:
    """The run folder of the same recipe where nothing fails."""

    def ran(command: str) -> Path:
        out = tmp_path / "undisturbed"
        words = ("--recipe", tmp_path / "recipe.yaml", "--trust-recipe", "--out", out, "-q")
        done = run(command, *words)
        assert done.returncode == 0, done.stderr
        return out

    return ran


def same(one: Path, other: Path) -> None:
    """All networks, masks and metrics are those of the other run."""
    kept = [path for path in one.rglob("*.safetensors") if path.parent.name != "state"]
    assert kept
    for path in [*kept, one / "metrics.jsonl"]:
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes(), path


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_loss_that_is_nan_ends_with_6_and_names_epoch_step_and_layer_and_nothing_is_pruned(
    asked: Run, undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", f"nan:{2 * STEPS + 2}")
    done = asked("imp")
    assert done.returncode == 6
    line = told(done)
    assert "loss is nan: the output of scale is not finite, in dense, epoch 3 after step 1" in line
    assert f"the last good state is {tmp_path}/run/state/step-{2 * STEPS:06}.safetensors" in line
    assert not names(tmp_path / "run") & {"round-00", "round-01", "DONE", "report.json"}
    monkeypatch.delenv("FAULT")
    done = asked("imp", "--resume")
    assert done.returncode == 0, done.stderr
    same(tmp_path / "run", undisturbed("imp"))


@pytest.mark.usefixtures("without_pictures")
def test_a_loss_that_is_nan_in_a_round_leaves_the_rounds_before_as_they_are(
    asked: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", f"nan:{EPOCHS * STEPS + 1}")
    done = asked("imp")
    assert done.returncode == 6
    assert "in imp 50.0%, epoch 1 after step 0 of 3" in told(done)
    assert "round-00" in names(tmp_path / "run")
    assert "round-01" not in names(tmp_path / "run")


def test_weights_that_are_nan_end_the_epoch_with_6_though_no_loss_tells_of_them(
    asked: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", f"hidden nan:{STEPS + 2}")
    done = asked("train")
    assert done.returncode == 6
    assert "hidden.weight is not finite after epoch 2" in told(done)
    assert f"step-{STEPS:06}.safetensors" in told(done)
    assert names(tmp_path / "run" / "state") == {f"step-{STEPS:06}.safetensors"}
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("gpu", "--set training.accumulate=2"), ("host", "--set training.batch_size=2")],
)
def test_a_lack_of_memory_ends_with_7_says_what_to_set_and_keeps_the_state(
    kind: str,
    hint: str,
    asked: Run,
    undisturbed: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULT", f"{kind}:{STEPS + 2}")
    done = asked("train")
    assert done.returncode == 7
    assert "out of memory" in told(done)
    assert hint in told(done)
    assert names(tmp_path / "run" / "state") == {f"step-{STEPS:06}.safetensors"}
    monkeypatch.delenv("FAULT")
    assert asked("train", "--resume").returncode == 0
    same(tmp_path / "run", undisturbed("train"))


@pytest.mark.slow
def test_a_data_worker_that_is_killed_ends_with_7_and_the_run_goes_on(
    asked_of_a_process: Run,
    undisturbed: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULT", "worker:4")
    done = asked_of_a_process("train", data="by_workers")
    assert done.returncode == 7
    assert told(done).startswith("error: a data worker was killed. ")
    assert "fewer workers" in told(done)
    monkeypatch.delenv("FAULT")
    done = asked_of_a_process("train", "--resume")
    assert done.returncode == 0, done.stderr
    same(tmp_path / "run", undisturbed("train"))


@pytest.mark.slow
def test_a_data_worker_that_is_killed_while_a_network_is_measured_ends_with_7(
    process: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.py").write_text(
        "import os, signal, torch\n"
        "from torch.utils.data import DataLoader, Dataset\n"
        "class Images(Dataset):\n"
        "    def __len__(self):\n"
        "        return 64\n"
        "    def __getitem__(self, index):\n"
        "        if index == 40:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return torch.rand(1, 28, 28), 0\n"
        "def batches():\n"
        "    return DataLoader(Images(), batch_size=8, num_workers=2)\n"
    )
    model = trained / "model.safetensors"
    done = process("eval", model, "--data", f"{tmp_path}/data.py:batches", "--json")
    assert done.returncode == 7
    assert told(done).startswith("error: a data worker was killed")
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["message"]) == (7, "a data worker was killed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 7), (signal.SIGTERM, 3)])
def test_why_a_data_worker_is_gone_is_looked_up_where_torch_does_not_say(
    number: signal.Signals, code: int
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child.send_signal(number)

    class Loader:
        def __init__(self) -> None:
            self._workers = [SimpleNamespace(exitcode=child.wait())]

        def next(self) -> None:
            raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")

    with pytest.raises(RuntimeError) as raised:
        Loader().next()
    error = convert_torch_error(raised.value)
    assert error is not None
    assert error.exit_code == code


@pytest.mark.slow
def test_a_data_worker_that_ends_by_itself_is_the_users(
    asked_of_a_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "exit:4")
    done = asked_of_a_process("train", data="by_workers")
    assert done.returncode == 3
    assert "exited unexpectedly" in told(done)


@pytest.mark.slow
def test_a_link_that_breaks_in_a_process_that_ends_is_not_shown_and_any_other_fault_is(
    process: Run, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.py").write_text(
        "import os, sys\n"
        "def batches():\n"
        "    if os.fork():\n"
        "        os.wait()\n"
        "        sys.excepthook(ConnectionResetError, ConnectionResetError('here'), None)\n"
        "        raise ValueError('no images')\n"
        "    for kind in (ConnectionResetError, ValueError):\n"
        "        sys.excepthook(kind, kind('there'), None)\n"
        "    os._exit(0)\n"
    )
    done = process("eval", trained / "model.safetensors", "--data", f"{tmp_path}/data.py:batches")
    assert "ConnectionResetError: there" not in done.stderr
    assert "ValueError: there" in done.stderr
    assert "ConnectionResetError: here" in done.stderr


def test_a_last_batch_of_one_is_told_where_a_batchnorm_cannot_take_it(asked: Run) -> None:
    done = asked("train", data="ending_in_one")
    assert done.returncode == 3
    assert "batch" in told(done)
    assert "drop_last" in told(done)


def test_a_data_set_without_samples_is_refused(asked: Run, tmp_path: Path) -> None:
    done = asked("train", data="empty")
    assert done.returncode == 3
    assert "has too few samples" in told(done)
    assert not (tmp_path / "run").exists()


def test_a_single_batch_is_an_epoch(asked: Run, tmp_path: Path) -> None:
    done = asked("train", data="one_batch")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "run" / "state") == {f"step-{n:06}.safetensors" for n in (2, 3)}


def test_labels_of_one_class_are_told(asked: Run, tmp_path: Path) -> None:
    done = asked("train", data="of_one_class")
    assert done.returncode == 0, done.stderr
    warnings = json.loads((tmp_path / "run" / "report.json").read_text())["warnings"]
    assert any("one class" in line for line in warnings), warnings
