"""The loops by the names of their commands."""

from collections.abc import Mapping

from snnprune.jobs.imp import imp_recipe
from snnprune.jobs.search import search_recipe
from snnprune.jobs.seeds import Job
from snnprune.jobs.train import train_recipe

JOBS: Mapping[str, Job] = {"train": train_recipe, "imp": imp_recipe, "search": search_recipe}
