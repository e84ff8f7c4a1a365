"""Files that are no recipe: each refused with its line, at once, and nothing of them run."""

import time
from pathlib import Path

import pytest
from pace import pace

from snnprune.recipe.errors import RecipeError
from snnprune.recipe.loading import load_recipe

GOOD = """\
model: {name: conv-snn}
data: {name: fashion-mnist-mini}
training: {epochs: 3, learning_rate: 1e-3}
"""


def fault(folder: Path, content: str | bytes) -> str:
    """The error of a file with `content`, told at once, without the folder."""
    file = folder / "r.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file))
    assert time.process_time() - start < 3 * pace()
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        b"---\n" + GOOD.encode() + b"...\n",
        b"%YAML 1.2\n---\n" + GOOD.encode(),
        b"# comment\n\n" + GOOD.encode() + b"\n# the end",
        GOOD.encode().rstrip(b"\n"),
        b'{"model": {"name": "conv-snn"}, "data": {"name": "fashion-mnist-mini"},'
        b' "training": {"epochs": 3, "learning_rate": 1e-3}}',
    ],
    ids=["plain", "BOM", "CRLF", "markers", "directive", "comments", "no newline", "JSON"],
)
def test_a_good_file_is_taken_in_every_guise(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(content)
    assert load_recipe(str(file)).training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "r.yaml:1: empty. a recipe has the sections model, data, training"),
        ("# only\n# comments\n", "r.yaml:1: empty. a recipe has the sections"),
        ("---\n", "r.yaml:2: empty. a recipe has the sections"),
        ("\n- a\n- b\n", "r.yaml:2: holds no settings, name: value. a recipe has the sections"),
        ("\n\n42\n", "r.yaml:3: holds no settings, name: value."),
        ("epochs = 3\n", "r.yaml:1: holds no settings, name: value."),
        (f"{GOOD}---\n{GOOD}", "r.yaml:4: a second document starts here"),
    ],
    ids=["empty", "comments", "marker", "list", "scalar", "TOML line", "two documents"],
)
def test_a_file_without_settings_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    assert fault(tmp_path, content).startswith(expected)


@pytest.mark.parametrize(
    ("content", "place", "what"),
    [
        ("model:\n\tname: x\n", "r.yaml:2: not YAML at column 1: ", "'\\t'"),
        ("model:\n  name: 'x\n", "r.yaml:3: not YAML at column 1: ", "(line 2, column 9)"),
        ("model: [a, b\n", "r.yaml:2: not YAML at column 1: ", "(line 1, column 8)"),
        ('[model]\nname = "x"\n', "r.yaml:2: not YAML at column 1: ", "<scalar>"),
        ("model: a: b\n", "r.yaml:1: not YAML at column 9: ", "mapping values"),
        ("model:\n  name: x\n args: {}\n", "r.yaml:3: not YAML at column 2: ", ""),
        ("a: @x\n", "r.yaml:1: not YAML at column 4: ", "'@'"),
        ('a:\n  "\\U00110000"\n', "r.yaml:2: not YAML at column ", "out of range"),
        ('a:\n  "\\UFFFFFFFF"\n', "r.yaml:2: not YAML at column ", "out of range"),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1\n", "r.yaml:1: not YAML at column ", "out of range"),
        ('a:\n  b: "\\ud800"\n', "r.yaml:2: a.b: ", "no file can hold"),
        ('a: "\\0"\n', "r.yaml:1: a: ", "no file can hold"),
        (b"\x1f\x8b\x08\x00\x00", "r.yaml:1: not text: byte 0x8b at column 2. ", "UTF-8"),
        (b"a: 1\nb: caf\xe9\n", "r.yaml:2: not text: byte 0xe9 at column 7. ", "UTF-8"),
        (GOOD.encode("utf-16"), "r.yaml:1: not text: byte 0xff at column 1. ", "UTF-8"),
        (b"a: 1\n\nb: \x00\n", "r.yaml:3: not text: U+0000 at column 4. ", "UTF-8"),
        (b"a: 1\nb: \x1b[31m\n", "r.yaml:2: not text: U+001B at column 4. ", "UTF-8"),
    ],
)
def test_what_is_not_yaml_is_told_with_line_and_column(
    tmp_path: Path, content: str | bytes, place: str, what: str
) -> None:
    message = fault(tmp_path, content)
    assert message.startswith(place)
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("seed: 1\nmodel: {}\nseed: 2\n", "r.yaml:3: seed: set twice, on lines 1 and 3"),
        (
            "model:\n  args:\n    width: 8\n    width: 16\n",
            "r.yaml:4: model.args.width: set twice, on lines 3 and 4",
        ),
        ("model:\n  name: a\n  'name': b\n", "r.yaml:3: model.name: set twice, on lines 2 and 3"),
    ],
)
def test_a_setting_given_twice_is_refused_with_both_lines(
    tmp_path: Path, content: str, expected: str
) -> None:
    assert fault(tmp_path, content) == expected


@pytest.mark.parametrize("name", ["[a]", "{a: 1}", "", "''"])
def test_a_setting_whose_name_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    message = fault(tmp_path, f"seed: 1\n? {name}\n: 2\n")
    assert message.endswith("the name of a setting should be text")


BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [*{old}, *{old}, *{old}]}}\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (BOMB, "r.yaml:1: anchor &a is not allowed"),
        (MERGE_BOMB, "r.yaml:1: anchor &a is not allowed"),
        ("a: &a [*a]\n", "r.yaml:1: anchor &a is not allowed"),
        ("seed: 1\na: *b\n", "r.yaml:2: alias *b is not allowed"),
        ("&root\na: 1\n", "r.yaml:1: anchor &root is not allowed"),
        ("[" * 100_000, "r.yaml:1: nested more than 20 deep"),
        ("{a: " * 50_000, "r.yaml:1: nested more than 20 deep"),
        ("- " * 100_000, "r.yaml:1: nested more than 20 deep"),
        ("? " * 100_000, "r.yaml:1: nested more than 20 deep"),
        ("seed:\n" + "9" * 6000, "r.yaml:2: not YAML"),
        ("seed: " + "9" * 6000, "r.yaml:1: seed: a number of 6000 characters is too long"),
        ("seed: 0x" + "f" * 200_000, "r.yaml:1: seed: a number of 200002 characters is too long"),
        ("seed: 0." + "1" * 200_000, "r.yaml:1: seed: a number of 200002 characters is too long"),
        ("seed: [" + "1," * 100_000, "r.yaml:1: more than 10000 values"),
        ("\n" * 200_000 + "seed: -1", "r.yaml:200001: model: missing"),
        ("seed: " + "x " * 100_000, "r.yaml:1: model: missing"),
        ("%A b\n" * 40_000, "r.yaml:40001: not YAML"),
    ],
    ids=lambda text: text[:12].strip() or "blank",
)
def test_a_bomb_is_refused_at_once(tmp_path: Path, content: str, expected: str) -> None:
    assert fault(tmp_path, content).startswith(expected)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:pathlib.Path.touch",
        "!!python/name:os.system",
        "!!str",
        "!!binary",
        "!mine",
        "!",
        "!<tag:example.org,2000:x>",
    ],
)
def test_a_tag_is_refused_and_nothing_is_run(tmp_path: Path, tag: str) -> None:
    witness = tmp_path / "witness"
    message = fault(tmp_path, f"seed: 1\nmodel: {tag} [{witness}]\n")
    assert message.startswith("r.yaml:2: tag ")
    assert message.endswith(" is not allowed")
    assert not witness.exists()


def test_a_merge_key_is_only_an_unknown_setting(tmp_path: Path) -> None:
    message = fault(tmp_path, f"{GOOD}<<: {{seed: 3}}\n")
    assert message.startswith("r.yaml:4: <<: unknown setting")


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "1:30", "2026-01-01", "=", "0b11", "<<"]
)
def test_what_only_yaml_1_1_converts_stays_text(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD.replace("conv-snn", text))
    assert load_recipe(str(file)).model.name == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-007", -7),
        ("+3", 3),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e+2", -150.0),
        ("True", True),
        ("FALSE", False),
        ("'1'", "1"),
        ('"true"', "true"),
        ("tRuE", "tRuE"),
        ("1e", "1e"),
        ("0o8", "0o8"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_values_are_read_as_yaml_1_2_reads_them(
    tmp_path: Path, text: str, value: object
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD.replace("conv-snn", f"conv-snn, args: {{x: {text}}}"))
    read = load_recipe(str(file)).model.args["x"]
    assert read == value
    assert type(read) is type(value)


def test_a_line_break_in_a_name_does_not_make_a_second_line_of_the_error(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD + '"x\\nerror: all is well": 1\n')
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file))
    assert len(caught.value.lines) == 1
