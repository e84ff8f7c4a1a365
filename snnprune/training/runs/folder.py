"""The folder of a run: recipe, metrics, states, results, hashes, `DONE` last."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.checkpoint.mask_file import write_masks
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.files.folders import as_output_error, close_after, open_folder
from snnprune.files.together import replace_together
from snnprune.files.writing import write_text
from snnprune.masks import Masks
from snnprune.recipe.dumping import dump_recipe
from snnprune.recipe.schema import Recipe
from snnprune.training.runs import metrics
from snnprune.training.runs.changes import check_differences
from snnprune.training.runs.metrics import Metrics, TensorBoard
from snnprune.training.runs.ownership import (
    DONE,
    MASK,
    METRICS,
    MODEL,
    RECIPE,
    STATES,
    clear,
    list_results,
    vouch,
)
from snnprune.training.runs.run import Groups
from snnprune.training.runs.state import State, StateStore, read_count, require_names, take_up

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
        self.states = StateStore(folder / STATES)
        self.warnings: list[str] = []
        self.board: TensorBoard | None = None

    def is_finished(self) -> bool:
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
            state = self._resume() if self.resume else None
            if not self.resume:
                self._start()
        if self.recipe.output.tensorboard:
            after = self._count_epochs() if self.rows else None
            folder = self.folder / metrics.FOLDER
            self.board = TensorBoard(folder, after=after, warn=self.warnings.append)
        return state

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to `metrics.jsonl`, and show it in TensorBoard at the epochs so far."""
        self.metrics.add(row)
        if self.board:
            self.board.add(row, self._count_epochs())

    def close(self) -> None:
        """Write nothing more."""
        if self.board:
            self.board.close()

    def _count_epochs(self) -> int:
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
        self.write({MODEL: tensors}, masks, {**self.metadata, **(metadata or {})}, folder)

    def write(
        self,
        networks: Mapping[str, Mapping[str, Tensor]],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
        folder: str = "",
    ) -> list[str]:
        """Write networks, those that have tensors, and their masks together; the files' names.

        Raises:
            OutputError: they cannot be written.
        """
        told = self.metadata if metadata is None else metadata
        filled = {name: tensors for name, tensors in networks.items() if tensors}
        names = [*filled, *([MASK] if masks else [])]
        place = self.folder / folder
        with replace_together(*(place / name for name in names), within=self.folder) as staged:
            for path, tensors in zip(staged, filled.values(), strict=False):
                write_safetensors(path, tensors, told)
            if masks:
                write_masks(staged[-1], masks, told)
        return names

    def finish(self, results: Iterable[str]) -> None:
        """Hash the recipe, the metrics, what was kept and `results`; say that the run is whole."""
        vouch(self.folder, (RECIPE, METRICS, *list_results(self.folder), *results))

    def _write(self, name: str, text: str) -> None:
        write_text(self.folder / name, text, within=self.folder)

    def _start(self) -> None:
        """Make the folder that of a new run."""
        clear(self.folder)
        self._write(RECIPE, dump_recipe(self.recipe))
        with close_after(open_folder(self.folder, [STATES])):
            pass  # it is there now
        self.metrics.cut(0)

    def _resume(self) -> State | None:
        state, warnings = self.states.read_newest()
        self.warnings += warnings
        if state is None:  # it ended in its first epoch
            self.metrics.cut(0)
            return None
        self.say(f"going on from {state.path}")
        with take_up(state):
            known = state.position
            told = check_differences(known["made_with"], self.made, self.allowed, self.folder)
            require_names(known, ("loop", "rows", "made_with", "warnings"))
            if not isinstance(known["warnings"], list) or not all(
                isinstance(line, str) for line in known["warnings"]
            ):
                raise ValueError("its warnings are not lines of text")
            self.metrics.cut(read_count(known, "rows"))
            self.warnings = [*known["warnings"], *self.warnings, *told]
            return replace(state, position=known["loop"])
