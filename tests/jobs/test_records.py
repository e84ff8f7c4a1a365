"""Notes of what a run has run: in the user's own folder, by the hash of the code."""

import stat
from pathlib import Path

import pytest

from snnprune.files.reading import hash_file
from snnprune.jobs.consent import NamedCode, hash_code, read_record, remember


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Path("own.py").write_text("def build(): ...\n", "utf-8")
    return tmp_path / "state" / "snnprune"


CODE = (NamedCode(path=("model", "name"), reference="own.py:build"),)


def test_a_note_tells_the_hash_of_what_was_run_in_a_folder(state: Path) -> None:
    assert read_record(Path("r")) == {}
    assert remember(Path("r"), CODE)
    assert read_record(Path("r")) == {"own.py:build": hash_file(Path("own.py"))}
    assert read_record(Path("other")) == {}
    for folder in (state, state / "runs"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_runs_of_seeds_and_of_a_grid_have_that_of_the_whole() -> None:
    remember(Path("r"), CODE)
    assert read_record(Path("r/conv-snn-mnist/seed-1")) == read_record(Path("r")) != {}
    assert read_record(Path("r/a/b/c")) == {}


def test_a_link_to_a_folder_is_the_folder() -> None:
    Path("theirs").mkdir()
    remember(Path("r"), CODE)
    Path("r").symlink_to("theirs")
    assert read_record(Path("r")) == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"code": 3}', "\0", '{"code": {"own.py:build": 3}}']
)
def test_a_damaged_note_is_none(text: str, state: Path) -> None:
    remember(Path("r"), CODE)
    for note in (state / "runs").iterdir():
        note.write_text(text)
    assert read_record(Path("r")).get("own.py:build") in (None, "3")


def test_where_no_note_can_be_made_the_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own.py"))
    assert not remember(Path("r"), CODE)
    assert read_record(Path("r")) == {}
    assert remember(Path("r"), ())  # there is nothing to note


def test_a_relative_place_for_notes_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    remember(Path("r"), CODE)
    assert (tmp_path / "home/.local/state/snnprune/runs").is_dir()


def test_the_file_of_a_module_is_found_without_importing_it() -> None:
    Path("boom").mkdir()
    Path("boom/__init__.py").write_text("raise SystemExit(1)\n", "utf-8")
    Path("boom/net.py").write_text("raise SystemExit(2)\n", "utf-8")
    assert hash_code("boom.net:build") == hash_file(Path("boom/net.py"))
    assert hash_code("boom:build") == hash_file(Path("boom/__init__.py"))
    import yaml.nodes

    assert hash_code("yaml.nodes:Node") == hash_file(Path(yaml.nodes.__file__))
    for absent in ("nothing_here:x", "yaml.nothing:x", "sys:x", "gone.py:x", "__main__:x", ".:x"):
        assert hash_code(absent) is None
