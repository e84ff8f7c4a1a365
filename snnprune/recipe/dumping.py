"""From a recipe to YAML text."""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from snnprune.plugins.references import encode_references
from snnprune.recipe.scalars import FLOAT, INTEGER
from snnprune.recipe.schema import Recipe


def dump_recipe(recipe: Recipe) -> str:
    """Every setting of its sections, defaults too, as YAML that loads back to an equal recipe."""
    settings = {name: value for name, value in recipe.model_dump().items() if value is not None}
    return dump_settings(settings)


def dump_settings(settings: Mapping[str, Any]) -> str:
    """YAML that loads back to the same settings."""
    plain = encode_references(dict(settings))
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 *or* 1.2 would read as something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds line breaks of every kind, and does not read them all back
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


# PyYAML knows 1.1 only and would leave the texts "1e3" and "0o17" bare.
_NUMBER = re.compile(rf"(?:{INTEGER.pattern}|{FLOAT.pattern})\Z")
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
_Dumper.add_representer(str, _represent_text)
