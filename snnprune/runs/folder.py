"""The folder of a run: recipe, metrics, states, results, hashes, `DONE` last."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.checkpoint import write_masks, write_safetensors
from snnprune.files import as_output_error, sha256_of, write_text
from snnprune.mask import Masks
from snnprune.recipe import Recipe, dump_recipe
from snnprune.runs import tensorboard
from snnprune.runs.changes import accepted
from snnprune.runs.metrics import Metrics
from snnprune.runs.run import Groups
from snnprune.runs.state import State, taking_up
from snnprune.runs.states import States
from snnprune.runs.tensorboard import TensorBoard

RECIPE, METRICS, STATES, REPORT = "recipe.yaml", "metrics.jsonl", "state", "report.json"
REPORTS = (REPORT, "report.html", "report.md")
MODEL, MASK, BEST = "model.safetensors", "mask.safetensors", "best.safetensors"
SHOWN = (
    *("accuracy.png", "accuracy.svg", "densities.png", "densities.svg"),
    *("firing-rates.png", "firing-rates.svg", "table.md"),
)
KEPT = ("round-*", "*/round-*", "dense", "sparsity-*")  # rounds may lie in one of their method
SUMS, DONE = "SHA256SUMS", "DONE"
TEMPORARY = ".snnprune-*.tmp"


class RunFolder:
    """A folder that this process has locked."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        made: Mapping[str, str],
        *,
        metadata: Mapping[str, str],
        resume: bool,
        say: Callable[[str], None],
        allowed: Collection[str] = (),
    ) -> None:
        """`recipe` is resolved; `made` says what the run is made with, `metadata` what is kept.

        `allowed` are the names in `made` that may have another value than before.
        """
        self.folder, self.recipe, self.made = folder, recipe, dict(made)
        self.metadata = metadata
        self.resume, self.say, self.allowed = resume, say, allowed
        self.metrics = Metrics(folder / METRICS)
        self.states = States(folder / STATES)
        self.warnings: list[str] = []
        self.board: TensorBoard | None = None

    @property
    def finished(self) -> bool:
        """Whether it holds a whole run that is to be left alone."""
        return self.resume and (self.folder / DONE).exists()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`."""
        return self.metrics.rows

    def begin(self) -> State | None:
        """The newest whole state, with the metrics cut back to it; None in a new run.

        Raises:
            InputError: no state is whole, or the metrics are not; or it was made with something
                else, which is not allowed.
            OutputError: nothing can be written.
        """
        with as_output_error(self.folder):
            state = self._taken_up() if self.resume else None
            if not self.resume:
                self._start()
        if self.recipe.output.tensorboard:
            after = self._epochs if self.rows else None
            folder = self.folder / tensorboard.FOLDER
            self.board = TensorBoard(folder, after=after, warn=self.warnings.append)
        return state

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to `metrics.jsonl`, and show it in TensorBoard at the epochs so far."""
        self.metrics.add(row)
        if self.board:
            self.board.add(row, self._epochs)

    def close(self) -> None:
        """Write nothing more."""
        if self.board:
            self.board.close()

    @property
    def _epochs(self) -> int:
        return sum(row.get("kind") == "epoch" for row in self.rows)

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:
        """Keep a state in `state/`, beside the one before."""
        known = {
            "loop": dict(position),
            "rows": len(self.rows),
            "made_with": self.made,
            "warnings": self.warnings,
        }
        filled = {group: named for group, named in groups.items() if named}
        self.states.save(number, State(position=known, groups=filled))

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write `FOLDER/model.safetensors` and, where something is pruned, its masks beside it."""
        place = self.folder / folder
        with as_output_error(place):
            place.mkdir(parents=True, exist_ok=True)
        told = {**self.metadata, **(metadata or {})}
        write_safetensors(place / MODEL, tensors, told)
        if masks:
            write_masks(place / MASK, masks, told)

    def finish(self, results: Iterable[str]) -> None:
        """Hash the recipe, the metrics, what was kept and `results`; say that the run is whole."""
        kept = sorted(path.relative_to(self.folder) for path in _kept(self.folder))
        names = (RECIPE, METRICS, *map(str, kept), *results)
        sums = (f"{sha256_of(self.folder / name)}  {name}\n" for name in names)
        write_text(self.folder / SUMS, "".join(sums))
        write_text(self.folder / DONE, "")

    def _start(self) -> None:
        """Make the folder that of a new run."""
        self._clear()
        write_text(self.folder / RECIPE, dump_recipe(self.recipe))
        (self.folder / STATES).mkdir(exist_ok=True)
        self.metrics.cut(0)

    def _taken_up(self) -> State | None:
        self._sweep()
        state, warnings = self.states.newest()
        self.warnings += warnings
        if state is None:  # it ended in its first epoch
            self.metrics.cut(0)
            return None
        self.say(f"going on from {state.path}")
        with taking_up(state):
            known = state.position
            told = accepted(known["made_with"], self.made, self.allowed, self.folder)
            self.metrics.cut(int(known["rows"]))
            self.warnings = [*known["warnings"], *self.warnings, *told]
            return replace(state, position=known["loop"])

    def _clear(self) -> None:
        """Delete what an older run left, what makes it one first; other files stay."""
        for name in (DONE, RECIPE, SUMS, METRICS, MODEL, MASK, BEST, *REPORTS, *SHOWN):
            (self.folder / name).unlink(missing_ok=True)
        for path in _kept(self.folder):
            path.unlink()
        self.states.clear()
        self._sweep()

    def _sweep(self) -> None:
        """Delete what a process that was killed was writing."""
        around = (place for pattern in KEPT for place in self.folder.glob(pattern))
        for folder in (self.folder, self.folder / STATES, *around):
            for path in folder.glob(TEMPORARY):
                path.unlink()


def _kept(folder: Path) -> list[Path]:
    """What `keep` wrote, in the folders of rounds and searches."""
    patterns = (f"{around}/{name}" for around in KEPT for name in (MODEL, MASK))
    return [path for pattern in patterns for path in folder.glob(pattern)]
