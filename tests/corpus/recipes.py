# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of recipes."""

from __future__ import annotations

from collections.abc import Callable

from corpus.bench import Bench
from corpus.case import Files, add, good

FILE = "recipe.yaml"


@good("recipe")
def as_a_user_writes_it(bench: Bench) -> Files:
    return {FILE: bench.recipe.read_bytes()}


@good("recipe")
def as_a_run_keeps_it(bench: Bench) -> Files:
    return {FILE: bench.bytes_of("train/recipe.yaml")}


@good("recipe")
def with_a_comment_that_is_hostile_to_whoever_shows_it(bench: Bench) -> Files:
    return {FILE: "# ::error::boom \u202e\n".encode() + bench.recipe.read_bytes()}


def _instead(old: str, new: str) -> Callable[[Bench], Files]:
    """A good recipe with other text in one place."""

    def made(bench: Bench) -> Files:
        text = bench.recipe.read_text("utf-8")
        assert old in text
        return {FILE: text.replace(old, new).encode("utf-8", "surrogatepass")}

    return made


EPOCHS, RATE, VALIDATION = "epochs: 2, batch", "learning_rate: 0.1", "validation: 0.25"
for _name, _value in {
    "2 ** 70": "1180591620717411303424",
    "fractions": "1.5",
    "true": "true",
    "in sexagesimal": "1:30",
    "below 0": "-1",
    "none": "0",
    "NaN": ".nan",
    "without end": ".inf",
    "in words": "many",
    "of 6000 digits": "9" * 6000,
    "in a list": "[2]",
    "hostile text": '"\\e[31m::error::\\u202e"',
}.items():
    add("recipe", f"epochs {_name}", _instead(EPOCHS, f"epochs: {_value}, batch"))
for _name, _old, _new in (
    ("a learning rate below 0", RATE, "learning_rate: -1"),
    ("a learning rate of NaN", RATE, "learning_rate: .nan"),
    ("a learning rate without end", RATE, "learning_rate: 1e999"),
    ("validation of all", VALIDATION, "validation: 1"),
    ("a setting that is not known", RATE, "lerning_rate: 0.1"),
    ("a setting twice", RATE, "learning_rate: 0.1, learning_rate: 0.2"),
    ("a setting of hostile text", RATE, '"\\e[31m\\n::error::": 0.1'),
    ("a batch of none", "batch_size: 4", "batch_size: 0"),
    ("a model that is not known", "conv-snn", "\\u202egnp"),
    ("a model of a shell", "conv-snn", '"os:system"'),
    ("a model of no text", "name: conv-snn", "name: [conv-snn]"),
    ("data that are not known", '"tensors:', '"tensor:'),
    ("data of nobody", '"tensors:', '"'),
    ("a criterion that is not known", "[imp, sf-imp-2]", "[__class__]"),
    ("rounds of none", "rounds: 2", "rounds: 0"),
    ("a rewind after the end", "rewind_epoch: 1", "rewind_epoch: 9"),
    ("a sparsity of all", "[0.5]", "[1.0]"),
    ("a sparsity in percent", "[0.5]", "[95]"),
    ("a seed of 2 ** 70", "search:", "seed: 1180591620717411303424\nsearch:"),
    ("a seed below 0", "search:", "seed: -1\nsearch:"),
    ("a tag of Python's", "epochs: 2,", "epochs: !!python/object/apply:os.system [ls],"),
    ("an anchor", "epochs: 2,", "epochs: &a 2,"),
    ("an alias", "epochs: 2,", "epochs: *a,"),
    ("two documents", "search:", "---\nsearch:"),
    ("a tab", "search:", "\tsearch:"),
    ("an unclosed quote", "search:", '"search:'),
    ("a NUL", "search:", "\0search:"),
    ("half a surrogate", "search:", "\ud800search:"),
):
    add("recipe", _name, _instead(_old, _new))
for _name, _text in {
    "empty": b"",
    "a list": b"- a\n",
    "a scalar": b"3\n",
    "TOML": b"[model]\nname = 'conv-snn'\n",
    "bytes": bytes(range(256)),
    "UTF-16": "model: {}".encode("utf-16"),
    "a bomb of aliases": b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "a deep one": b"[" * 10_000,
    "deep tables": b"a: " * 10_000,
    "a megabyte": b"# x\n" * 2**18,
    "twenty thousand values": b"a: [" + b"1," * 20_000 + b"]",
}.items():
    add("recipe", _name, lambda bench, text=_text: {FILE: text})
