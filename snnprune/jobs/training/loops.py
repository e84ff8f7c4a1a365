"""The loops by the names of their commands."""

import functools
from collections.abc import Mapping

from snnprune.jobs.training.finetune import finetune_checkpoint
from snnprune.jobs.training.imp import imp_recipe
from snnprune.jobs.training.options import FinetuneFiles
from snnprune.jobs.training.search import search_recipe
from snnprune.jobs.training.seeds import Job
from snnprune.jobs.training.train import train_recipe

JOBS: Mapping[str, Job] = {"train": train_recipe, "imp": imp_recipe, "search": search_recipe}


def job_of(command: str, files: FinetuneFiles | None = None) -> Job:
    """What `command` runs; `finetune` begins with `files`."""
    return JOBS[command] if files is None else functools.partial(finetune_checkpoint, files)
