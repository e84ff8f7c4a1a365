"""A folder or file that becomes a link between the look at it and its use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snnprune.errors import OutputError
from snnprune.files.writing import replace_file, require_free

NOBODY = 65534
Swapping = Callable[[str, int, Callable[[], None]], list[int]]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder that nothing may write to, with a file in it."""
    made = tmp_path / "victim"
    made.mkdir()
    (made / "out").write_text("theirs")
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that an attacker may write to."""
    made = tmp_path / "place"
    made.mkdir()
    return made


@pytest.fixture
def swapping(monkeypatch: pytest.MonkeyPatch) -> Swapping:
    """`swapping("open", 2, swap)`: another process swaps just before the second call of os.open."""

    def before(name: str, number: int, swap: Callable[[], None]) -> list[int]:
        plain, calls = getattr(os, name), [0]

        def called(*given: object, **named: object) -> object:
            calls[0] += 1
            if calls[0] == number:
                child = os.fork()
                if not child:
                    swap()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            return plain(*given, **named)

        monkeypatch.setattr(os, name, called)
        return calls

    return before


def write(path: Path, *, within: Path | None = None) -> None:
    with replace_file(path, within=within) as temporary:
        temporary.write_text("ours")


@pytest.mark.many(2)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
@pytest.mark.parametrize("name", ["open", "mkdir", "rename", "link", "lstat", "stat", "fsync"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("inside", [True, False])
def test_a_file_that_becomes_a_link_at_any_call_is_not_written_through(
    name: str, number: int, inside: bool, place: Path, victim: Path, swapping: Swapping
) -> None:
    path = place / "out"
    path.write_text("old")
    place.chmod(0o777)
    folder = os.open(place, os.O_RDONLY)

    def swap() -> None:
        os.unlink("out", dir_fd=folder)
        os.setuid(NOBODY)  # a link of the user's own is followed
        os.symlink(victim / "out", "out", dir_fd=folder)

    swapping(name, number, swap)
    try:
        write(path, within=place if inside else None)
    except OutputError as error:
        assert "link" in str(error)  # noqa: PT017  # it may come in time to be replaced
    finally:
        os.close(folder)
    assert (victim / "out").read_text() == "theirs"
    assert [path.name for path in victim.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["open", "mkdir", "rename", "fsync"])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_folder_that_becomes_a_link_after_it_was_opened_leads_nowhere(
    name: str, number: int, place: Path, victim: Path, swapping: Swapping
) -> None:
    def swap() -> None:
        place.rename(place.with_name("moved"))
        place.symlink_to(victim)

    swapping(name, number, swap)
    write(place / "out")
    assert (victim / "out").read_text() == "theirs"
    assert [path.name for path in victim.iterdir()] == ["out"]


def test_a_folder_below_a_strangers_that_becomes_a_link_is_refused(
    place: Path, victim: Path, swapping: Swapping
) -> None:
    below = place / "round-01"
    below.mkdir()

    def swap() -> None:
        below.rmdir()
        below.symlink_to(victim)

    swapping("open", 2, swap)
    with pytest.raises(OutputError):
        write(below / "out", within=place)
    assert (victim / "out").read_text() == "theirs"
    assert [path.name for path in victim.iterdir()] == ["out"]


def test_what_was_free_and_is_a_link_when_it_is_written_is_left_alone(
    place: Path, victim: Path
) -> None:
    path = place / "out"
    require_free(path)
    path.symlink_to(victim / "out")
    with pytest.raises(OutputError, match="link"):
        write(path, within=place)
    assert (victim / "out").read_text() == "theirs"


def test_a_link_of_somebody_else_in_the_place_of_an_output_is_not_followed(
    place: Path, victim: Path
) -> None:
    path = place / "out"
    path.symlink_to(victim / "out")
    write(path)
    assert (victim / "out").read_text() == "ours"
    if os.geteuid() != 0:
        return  # nobody else can be had
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (victim / "out").write_text("theirs")
    with pytest.raises(OutputError, match="is a link, not a regular file"):
        write(path)
    assert (victim / "out").read_text() == "theirs"
    os.chown(place, NOBODY, NOBODY)  # whoever has the folder may lead where they like
    write(path)
    assert (victim / "out").read_text() == "ours"
