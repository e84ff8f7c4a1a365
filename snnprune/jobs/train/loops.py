"""The loops by the names of their commands."""

import functools
from collections.abc import Mapping

from snnprune.jobs.train.finetune import finetune_checkpoint
from snnprune.jobs.train.options import FinetuneFiles
from snnprune.jobs.train.seeds import Job
from snnprune.jobs.train.tickets import imp_recipe, search_recipe
from snnprune.jobs.train.train import train_recipe

JOBS: Mapping[str, Job] = {"train": train_recipe, "imp": imp_recipe, "search": search_recipe}


def job_of(command: str, files: FinetuneFiles | None = None) -> Job:
    """What `command` runs; `finetune` begins with `files`."""
    return JOBS[command] if files is None else functools.partial(finetune_checkpoint, files)
