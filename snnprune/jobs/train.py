"""`snnprune train`: from a recipe to a run folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snnprune.checkpoint import write_safetensors
from snnprune.data import DataOptions
from snnprune.device import choose_device
from snnprune.errors import OutputError
from snnprune.evaluation import Evaluation
from snnprune.files import require_writable_folder, sha256_of, write_json, write_text
from snnprune.jobs.recipes import require_names
from snnprune.loops.train import Trained, train
from snnprune.progress import Progress
from snnprune.provenance import described
from snnprune.recipe import Recipe, dump_recipe
from snnprune.report import about_evaluation, report


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the command line asks for."""

    recipe: Recipe
    out: Path
    device: str = "auto"
    data_root: Path | None = None
    download: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What came of it."""

    test: Evaluation | None
    report: dict[str, Any]


def train_recipe(options: TrainOptions, progress: Progress) -> TrainedRun:
    """Train, and leave a run folder: recipe, checkpoint, metrics, report, hashes, `DONE` last."""
    require_names(options.recipe)
    require_fresh_folder(options.out, force=options.force)
    trained = train(
        options.recipe,
        device=choose_device(options.device),
        data_options=DataOptions(root=options.data_root, download=options.download),
        progress=progress,
    )
    found = _report(options, trained)
    _write(options.out, trained, options.recipe, found)
    return TrainedRun(test=trained.test, report=found)


def require_fresh_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder with something in it, unless `force`.

    Raises:
        OutputError: there is something in it, or nothing can be written there.
    """
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise OutputError("is not empty", file=folder, hint="--force replaces what is in it")
    require_writable_folder(folder)


def _report(options: TrainOptions, trained: Trained) -> dict[str, Any]:
    recipe = options.recipe
    return report(
        "train",
        device=next(trained.network.module.parameters()).device,
        seed=recipe.seed,
        recipe=recipe.model_dump(mode="json"),
        model={"name": trained.spec.name, "args": dict(trained.spec.args)},
        data=asdict(trained.data),
        epochs=[asdict(epoch) for epoch in trained.epochs],
        test=about_evaluation(trained.test),
        outputs=[{"path": str(options.out / "model.safetensors")}],
    )


def _write(folder: Path, trained: Trained, recipe: Recipe, found: dict[str, Any]) -> None:
    (folder / "DONE").unlink(missing_ok=True)
    args = {"args": dict(trained.spec.args)}
    resolved = recipe.model_copy(update={"model": recipe.model.model_copy(update=args)})
    write_text(folder / "recipe.yaml", dump_recipe(resolved))
    write_safetensors(
        folder / "model.safetensors",
        trained.network.module.state_dict(),
        described("train", model=trained.spec, data=trained.data),
    )
    lines = (json.dumps(asdict(epoch)) + "\n" for epoch in trained.epochs)
    write_text(folder / "metrics.jsonl", "".join(lines))
    write_json(folder / "report.json", found)
    names = ("recipe.yaml", "model.safetensors", "metrics.jsonl", "report.json")
    sums = (f"{sha256_of(folder / name)}  {name}\n" for name in names)
    write_text(folder / "SHA256SUMS", "".join(sums))
    write_text(folder / "DONE", "")
