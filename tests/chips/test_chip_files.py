"""Chips as files: those that come with snnprune, one's own, wrong ones; and `chips ls|show|cp`."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnprune.chips import Chip, builtin_chips, load_chip
from snnprune.errors import InputError
from snnprune.recipe.errors import RecipeError

Run = Callable[..., subprocess.CompletedProcess[str]]
BUILT_IN = ["loihi-1", "loihi-2", "speck", "template", "xylo-audio-2", "xylo-audio-3", "xylo-imu"]


def test_the_built_in_chips_are_these_and_each_says_where_its_numbers_are_from() -> None:
    assert list(builtin_chips()) == BUILT_IN
    for name, path in builtin_chips().items():
        chip = load_chip(name)
        assert chip.sources
        assert path.read_text("utf-8").startswith("# ")
        assert load_chip(str(path)) == chip


def test_the_template_names_every_setting_of_a_chip() -> None:
    text = builtin_chips()["template"].read_text("utf-8")
    for name in Chip.model_fields:
        assert f"\n{name}:" in text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("storage: dense", "storage: densely", "storage: 'densely' should be 'dense' or"),
        ("padded: true", "pad: true", "pad: unknown setting. did you mean padded?"),
        ("weight_bits: 8", "weight_bits: 40", "weight_bits: 40 should be less than"),
        ("neurons: 65536", "neuron: 65536", "cores.0.neuron: unknown setting. did you mean"),
        ("layer-per-core", "spread", "cores: placement spread needs cores of one kind"),
        ("title: Speck 2e / 2f, DYNAP-CNN\n", "", "title: missing. needed: what people call"),
        ("kinds: [linear, conv2d]", "kinds: []", "kinds: at least one value is needed"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    text = builtin_chips()["speck"].read_text("utf-8")
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load_chip(str(path))
    name, line, told = str(caught.value).split(":", 2)
    assert name == str(path)
    assert words in told
    there = path.read_text("utf-8").splitlines()[int(line) - 1]
    assert new.strip() in there or not new or "spread" in new


def test_a_name_that_nothing_has_is_refused_with_the_nearest(run: Run) -> None:
    done = run("chips", "show", "spek")
    assert done.returncode == 3
    assert done.stderr == "error: spek: no such chip. did you mean speck?\n"


@given(st.text(max_size=40))
def test_any_other_text_is_no_chip(text: str) -> None:
    with pytest.raises(InputError, match=r"no such chip|is a folder|cannot be read"):
        load_chip(text)


def test_ls_show_and_cp(run: Run, tmp_path: Path) -> None:
    listed = run("chips", "ls").stdout.splitlines()
    assert [line.split()[0] for line in listed] == BUILT_IN
    text = builtin_chips()["speck"].read_text("utf-8")
    assert run("chips", "show", "speck").stdout == text
    assert run("chips", "cp", "speck", tmp_path).returncode == 0
    assert (tmp_path / "speck.yaml").read_text("utf-8") == text
    assert run("chips", "cp", "speck", tmp_path).returncode == 5
    told = json.loads(run("chips", "ls", "--json").stdout)
    assert [one["name"] for one in told["chips"]] == BUILT_IN
    assert told["chips"][0]["cores"][0]["neurons"] == 1024


def test_the_page_on_chips_has_a_row_for_each() -> None:
    page = (Path(__file__).parents[2] / "docs" / "chips.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`([\w-]+)`", row)) == BUILT_IN


def test_a_chip_is_read_without_torch() -> None:
    code = (
        "import sys; from snnprune.chips import load_chip; import snnprune.chips.check; "
        "load_chip('speck'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
