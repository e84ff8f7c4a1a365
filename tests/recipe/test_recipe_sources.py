"""Where recipes come from."""

import os
from pathlib import Path

import pytest

from snnprune.errors import InputError
from snnprune.recipe.loading import MAX_BYTES, builtin_recipes, load_recipe

TEXT = """\
model: {name: mine}
data: {name: fashion-mnist-mini}
training: {epochs: 3, learning_rate: 0.1}
"""


def fault(source: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(str(source))
    assert caught.value.exit_code == 3
    return str(caught.value).removeprefix(f"{source}: ")


def test_a_recipe_that_does_not_exist_names_the_built_in_ones(tmp_path: Path) -> None:
    expected = f"no such recipe. built-ins are {', '.join(builtin_recipes())}"
    assert fault(tmp_path / "none.yaml") == expected
    assert fault("cifar11") == expected
    assert fault("x" * 10_000) == expected


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert fault(tmp_path) == "is a folder. name a recipe in it"


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert fault(tmp_path / "fifo") == "is not a regular file"
    assert fault("/dev/zero") == "is not a regular file"


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert fault(tmp_path / "dangling") == "cannot be read: No such file or directory"
    assert fault(tmp_path / "loop") == "cannot be read: Too many levels of symbolic links"


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "r.yaml").write_text(TEXT)
    monkeypatch.setattr(Path, "open", refuse)  # the mode of a file does not stop root
    assert fault(tmp_path / "r.yaml") == "cannot be read: Permission denied"


def test_a_large_file_is_refused_and_one_just_small_enough_is_read(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(TEXT + "#" * (MAX_BYTES - len(TEXT)))
    assert load_recipe(str(file)).model.name == "mine"
    file.write_text(TEXT + "#" * (MAX_BYTES - len(TEXT) + 1))
    assert fault(file) == "more than 256 KiB, too large for a recipe"


@pytest.mark.parametrize("name", ["a b.yaml", "é😀", "-x", "new\nline", "no-suffix"])
def test_a_file_with_an_odd_name_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXT)
    assert load_recipe(str(tmp_path / name)).model.name == "mine"


def test_an_edited_copy_in_the_current_folder_is_used_rather_than_the_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text(TEXT)
    assert load_recipe("smoke.yaml").model.name == "mine"
    assert load_recipe("smoke").model.name == "conv-snn"


def test_a_folder_named_like_a_built_in_recipe_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    assert load_recipe("cifar10").data.name == "cifar10"
