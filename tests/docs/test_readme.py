"""README's commands do what README says."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from needed import ALONE, ROOT, alone, dependencies, extra, package, require_all

README = ROOT / "README.md"
OLDEST = ROOT / "tests" / "requirements-oldest.txt"


def block_after(mark: str) -> str:
    """The shell commands of the fenced block under a mark."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, mark
    return found[1]


def test_the_two_commands_make_their_own_environment() -> None:
    for mark in ("command: demo", "command: test"):
        (command,) = block_after(mark).splitlines()
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_the_test_command_installs_all_that_the_tests_need() -> None:
    first, *installs, last = block_after("command: test").strip().split(" && ")
    assert (first, last) == ("python3 -m venv .venv", ".venv/bin/pytest")
    pip = ".venv/bin/pip install --quiet"
    file = ALONE.relative_to(ROOT)
    assert installs == [f"{pip} --editable '.[test]'", f"{pip} --no-deps --requirement {file}"]
    assert not set(map(package, extra("test"))) & set(map(package, alone()))


def test_a_package_that_is_not_there_is_named_with_where_the_command_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_all()
    real = metadata.distribution

    def without_sinabs(name: str) -> metadata.Distribution:
        return real("no-such-package" if name == "sinabs" else name)

    monkeypatch.setattr(metadata, "distribution", without_sinabs)
    with pytest.raises(ImportError, match=r"^the tests need sinabs: .* command of README\.md"):
        require_all()


def test_the_oldest_torch_of_the_tests_is_the_oldest_that_is_allowed() -> None:
    found = re.search(r"^torch==([\d.]+)\.\*$", OLDEST.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    asked = [*dependencies(), *(metadata.requires("spikingjelly") or [])]
    lowest = [one.removeprefix("torch>=") for one in asked if one.startswith("torch>=")]
    assert len(lowest) == 2
    newest = max(tuple(map(int, one.split(".")))[:2] for one in lowest)
    assert tuple(map(int, found[1].split("."))) == newest


def test_every_linked_page_and_picture_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).is_file(), target


@pytest.mark.slow
def test_the_common_jobs_work_as_pasted(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block_after("commands: jobs")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pruned.safetensors").is_file()
    assert (tmp_path / "magnitude.mask.safetensors").is_file()
