"""Write docs/recipes.md: every setting of a recipe, read off the schema that checks it.

`python docs/make_recipes.py` writes the page, `python docs/make_recipes.py --check` fails where it
is stale.
"""

import json
import sys
from pathlib import Path
from typing import Any, get_args

from pages import written
from pydantic_core import PydanticUndefined

from snnprune.recipe.loading import builtin_recipes
from snnprune.recipe.schema import PruneSection, Recipe, find_section

PAGE = Path(__file__).with_name("recipes.md")
INTRODUCTION = """\
# Recipes

A recipe is the YAML file of a training run. `snnprune recipes ls` lists the built-in ones, `recipes
show NAME` prints one, `recipes cp NAME mine.yaml` copies one to change it, and `recipes validate
mine.yaml` checks it without running anything of it. `--recipe` takes a name or a file,
`--set section.setting=value` changes a setting, and the run folder keeps the recipe as it was run,
every default written out. Unknown settings are refused with the nearest known one.

Code that only a file names is not run: `file.py:function` or `package.module:name` in a recipe
needs the same name on the command line, as `--set model.name=my_network.py:build`, or
`--trust-recipe` for this one command. `recipes validate` and `recipes show` list what is named.
[usage.md](usage.md#a-recipe-that-names-code) has an example, [SECURITY.md](../SECURITY.md) what is
promised.

A file has a section for each command that can be run on its data: `train` reads `model`,
`data`, `training` and `gradual`, the other commands also the section of their name. Numbers are
those of YAML 1.2, so `1e-3` is one; anchors, aliases and tags are refused.

This page is written by `python docs/make_recipes.py`; a test fails where it is stale.
"""


def page() -> str:
    """The whole page."""
    sections = [name for name in Recipe.model_fields if _is_section(name)]
    others = [name for name in Recipe.model_fields if name not in sections]
    parts = [INTRODUCTION, _builtins()]
    parts += [_section(name) for name in sections]
    parts += ["## Beside the sections\n", _table(Recipe, others), _of_prune()]
    return "\n".join(parts)


def _builtins() -> str:
    rows = ["## Built in\n", "| name | what it is |", "|---|---|"]
    for name, path in builtin_recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append(f"| `{name}` | {first.lstrip('# ')} |")
    return "\n".join([*rows, ""])


def _is_section(name: str) -> bool:
    try:
        return hasattr(find_section([name]), "model_fields")
    except AssertionError:
        return False


def _section(name: str) -> str:
    section = find_section([name])
    title = f"## {name}\n\n{' '.join((section.__doc__ or '').split())}\n"
    return "\n".join([title, _table(section, list(section.model_fields))])


def _of_prune() -> str:
    """The recipe of `prune`, which is a file of its own."""
    title = "## The recipe of prune\n\n`prune --recipe` takes a file with one section, `prune`."
    about = " ".join((PruneSection.__doc__ or "").split())
    return "\n".join([f"{title} {about}\n", _table(PruneSection, list(PruneSection.model_fields))])


def _table(section: Any, names: list[str]) -> str:
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name in names:
        field = section.model_fields[name]
        described = f"{field.description}{_choices(field.annotation)}"
        rows.append(f"| `{name}` | {_default(field.default)} | {described} |")
    return "\n".join([*rows, ""])


def _choices(annotation: Any) -> str:
    """What a setting may be, where it is one of a few words."""
    words = get_args(annotation)
    if not words or not all(isinstance(word, str) for word in words):
        return ""
    return f" ({', '.join(f'`{word}`' for word in words)})"


def _default(value: object) -> str:
    return "required" if value is PydanticUndefined else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.exit(written(PAGE, page(), "make_recipes.py", sys.argv[1:]))
