"""`snnprune prune`: from a checkpoint to smaller ones that are drop-ins, with the evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from snnprune.checkpoint.containers import require_writable_as
from snnprune.errors import SnnpruneError, UsageError, error_class_for, suggest_share
from snnprune.files.writing import require_apart, require_free
from snnprune.jobs.check import find_chip_limit, publish_verdicts
from snnprune.jobs.prune.options import (
    KEEPING,
    AccuracyTarget,
    OutputPaths,
    PruneOptions,
)
from snnprune.jobs.prune.outcome import PrunedFile, PruneOutcome
from snnprune.jobs.prune.stored import StoredPruning, open_for_stored_pruning
from snnprune.pruning.allocation import ALLOCATIONS, require_sparsity
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.repair import require_repair
from snnprune.pruning.structure import CHANNELS, UNSTRUCTURED, Structure, parse_structure
from snnprune.runtime import Progress

if TYPE_CHECKING:
    from snnprune.jobs.prune.budgets import BudgetResult
    from snnprune.jobs.prune.filing import FinishedPruning
    from snnprune.jobs.prune.target_sparsity import Search
    from snnprune.recipe.schema import PruneSection
    from snnprune.report.verdicts import Limit


def prune_checkpoint(options: PruneOptions, progress: Progress) -> PruneOutcome:
    """Prune a checkpoint and write each pruned file with its masks and its report.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then, and the message names those
            that were written before.
    """
    options = _complete_options(options)
    pruning = _open_pruning(options, progress)
    files: list[PrunedFile] = []
    for sparsity, place in pruning.goals:
        with _name_files_in_errors(files):
            files.append(pruning.write(sparsity, place))
    return _make_outcome(pruning, files, options)


def prune_given(options: PruneOptions, progress: Progress) -> tuple[PruneOutcome, FinishedPruning]:
    """Prune the network that the options have, to one goal; what came of it, to be written or not.

    Raises:
        SnnpruneError: whatever is wrong.
    """
    from snnprune.jobs.prune.filing import NetworkPruning  # imports torch

    options = _complete_options(options)
    pruning = NetworkPruning(options, progress)
    ((sparsity, _),) = pruning.goals
    made = pruning.finish(sparsity)
    return _make_outcome(pruning, [made.describe()], options), made


def _make_outcome(
    pruning: Pruning, files: Sequence[PrunedFile], options: PruneOptions
) -> PruneOutcome:
    """All that came of it, with gates told to whoever reads them."""
    verdicts = {one.place.out.name: one.verdicts for one in files}
    warnings = publish_verdicts("prune", verdicts, options.junit)
    report = files[0].report if len(files) == 1 else _make_joint_report(pruning, files)
    report = {**report, "warnings": [*report["warnings"], *warnings]}
    return PruneOutcome(
        files=tuple(files),
        search=pruning.search,
        budget=pruning.budget,
        report=report,
    )


class Pruning(Protocol):
    """A checkpoint that was opened, calibrated and scored, as far as need be."""

    @property
    def goals(self) -> Sequence[tuple[float, OutputPaths]]:
        """Each sparsity and where its file goes."""
        ...

    @property
    def search(self) -> Search | None:
        """How the sparsity was found, where it was looked for."""
        ...

    @property
    def budget(self) -> BudgetResult | None:
        """How limits were kept within, where the cut was to be the smallest that does."""
        ...

    def write(self, sparsity: float, place: OutputPaths) -> PrunedFile:
        """Prune, measure, and write file, masks and report."""
        ...

    def make_joint_report(self, files: Sequence[PrunedFile]) -> dict[str, Any]:
        """One report with those of all files in it."""
        ...


def _open_pruning(options: PruneOptions, progress: Progress) -> Pruning:
    """In the file, where no network is needed; else with all of it in memory."""
    target = open_for_stored_pruning(options)
    if target is not None:
        return StoredPruning(target, options, progress)
    from snnprune.jobs.prune.filing import NetworkPruning  # imports torch

    return NetworkPruning(options, progress)


@contextlib.contextmanager
def _name_files_in_errors(files: list[PrunedFile]) -> Iterator[None]:
    """An error in the block tells which files are there."""
    try:
        yield
    except SnnpruneError as error:
        if files:
            names = ", ".join(one.place.out.name for one in files)
            error.message += f" (written before: {names})"
        raise


def _make_joint_report(pruning: Pruning, files: Sequence[PrunedFile]) -> dict[str, Any]:
    """One report with those of all files in it, and the first error."""
    report = pruning.make_joint_report(files)
    errors = [one.error.as_dict() for one in files if one.error is not None]
    return {**report, "ok": False, "error": errors[0]} if errors else report


def _complete_options(options: PruneOptions) -> PruneOptions:
    """The options with what their recipe says where the flags say nothing, all of it checked.

    Raises:
        UsageError: something is unknown, missing or contradicts something else.
        InputError: the recipe cannot be used, or names code without the user's consent.
        OutputError: a file is in the way.
    """
    if options.recipe is not None:
        from snnprune.recipe.loading import load_prune_section

        section = load_prune_section(options.recipe)
        _require_consent(options, section)
        options = _apply_recipe(options, section)
    _require_names(options)
    options = _apply_pattern(options)
    _require_one_goal(options)
    options = _apply_chip(options)
    if options.given is None:
        require_writable_as(options.checkpoint, options.out)
        for place in options.places:
            for path in place.files:
                require_free(path, force=options.force, inputs=options.list_inputs())
    if options.junit is not None:
        if not options.limits:
            raise UsageError("no gate is given", field="--junit", hint="such as --min-sparsity 0.9")
        require_free(options.junit, force=options.force, inputs=options.list_inputs())
        outputs = (path for place in options.places for path in place.files)
        require_apart(options.junit, outputs, field="--junit")
    return options


def _require_consent(options: PruneOptions, section: PruneSection) -> None:
    """Refuse code that the recipe alone names; a flag takes the place of a setting."""
    from snnprune.jobs.consent import find_code, format_as_flag, require_consent

    given = {
        name: getattr(options, name)
        for name in ("criterion", "allocation", "repair", "structure")
        if getattr(options, name)
    }
    require_consent(
        find_code(section.model_copy(update=dict.fromkeys(given)), within="prune"),
        file=options.recipe,
        typed=tuple(part for text in given.values() for part in (text, *text.split("+"))),
        trusted=options.trust_recipe,
        typed_as=format_as_flag,
    )


def _apply_recipe(options: PruneOptions, section: PruneSection) -> PruneOptions:
    given = () if section.sparsity is None else (section.sparsity,)
    flags_say = options.sparsities or options.accuracy_target
    return replace(
        options,
        sparsities=options.sparsities if flags_say else given,
        criterion=options.criterion or section.criterion,
        allocation=options.allocation or section.allocation,
        repair=options.repair or section.repair,
        steps=options.steps or section.steps,
        structure=options.structure or section.structure,
        bits=options.bits or section.bits,
        layers=options.layers or section.layers,
    )


def _apply_pattern(options: PruneOptions) -> PruneOptions:
    """The options with the sparsity that an N:M pattern brings.

    Raises:
        UsageError: another one, a target or layers of their own are asked for beside it.
    """
    structure = parse_structure(options.structure or UNSTRUCTURED)
    if structure.name != UNSTRUCTURED and options.layers:
        raise UsageError(
            f"{structure.name} and layers with a sparsity of their own exclude each other",
            field="--structure",
        )
    if not structure.is_pattern:
        return options
    if options.accuracy_target is not None or set(options.sparsities) - {structure.sparsity}:
        raise UsageError(
            f"{structure.name} is a sparsity of {structure.sparsity:g}; leave others out",
            field="--structure",
        )
    return replace(options, sparsities=(structure.sparsity,))


def _apply_chip(options: PruneOptions) -> PruneOptions:
    """The options with the bits of the chip, where one is named.

    Raises:
        UsageError: something else is asked for beside it.
    """
    limit = find_chip_limit(options.limits)
    if limit is None:
        return options
    chip = limit.value
    if options.bits is not None and options.bits > chip.weight_bits:
        raise UsageError(
            f"{options.bits} bits are more than the {chip.weight_bits} of {limit.text}",
            field="--bits",
            hint="leave it out",
        )
    if options.fits_chip:
        _require_sense_of_chip(options, limit)
    return replace(options, bits=options.bits or chip.weight_bits)


def _require_sense_of_chip(options: PruneOptions, limit: Limit) -> None:
    """Refuse what would choose otherwise what a chip decides."""
    given = {
        "--structure": options.structure is not None,
        "--allocation": options.allocation is not None,
        "--steps": options.steps not in (None, 1),
        "--target-accuracy": options.target_accuracy is not None,
    }
    for flag, is_given in given.items():
        if is_given:
            raise UsageError(
                f"is decided by --chip {limit.text}",
                field=flag,
                hint="leave it out, or give --sparsity: the chip is a gate beside it",
            )
    if options.budget and not limit.value.sparse:
        raise UsageError(
            f"is given beside --chip {limit.text}, which stores every zero",
            field=options.budget[0].gate.flag,
            hint="give one of them, or --sparsity",
        )


def _require_allocation(structure: Structure, allocation: str | None) -> None:
    """Refuse an allocation that a structure leaves nothing to.

    Raises:
        UsageError: it is one.
    """
    if structure.name == CHANNELS and allocation not in (None, "global", "local"):
        raise UsageError("channels are shared out by global or local", field="--allocation")
    if structure.is_pattern and allocation is not None:
        raise UsageError(f"{structure.name} leaves nothing to share out", field="--allocation")


def _require_names(options: PruneOptions) -> None:
    """Refuse names that nothing has, before any work is done."""
    if options.criterion is not None:
        CRITERIA.require(options.criterion, field="--criterion")
    if options.allocation is not None:
        ALLOCATIONS.require(options.allocation, field="--allocation")
    if options.repair is not None:
        require_repair(options.repair)
    if options.structure is not None:
        structure = parse_structure(options.structure)
        _require_allocation(structure, options.allocation)


def _require_one_goal(options: PruneOptions) -> None:
    """Refuse a command without a sparsity or with more goals than one."""
    for sparsity in options.sparsities:
        require_sparsity(sparsity)
    if len({f"{sparsity:g}" for sparsity in options.sparsities}) < len(options.sparsities):
        raise UsageError("names a sparsity twice", field="--sparsity")
    wanted = options.accuracy_target
    if options.budget:
        _require_sense_of_budget(options)
    elif not (wanted or options.fits_chip or options.sparsities or options.layers):
        raise UsageError(
            "missing",
            field="--sparsity",
            hint="or give a limit such as --max-synops, --target-accuracy or a recipe with one",
        )
    if wanted is None:
        return
    if options.sparsities:
        raise UsageError("is given beside --sparsity", field=wanted.flag, hint="leave one out")
    if options.layers:
        raise UsageError(
            "is given beside a recipe in which layers have a sparsity of their own",
            field=wanted.flag,
            hint="leave one out",
        )
    _require_reachable(wanted)


def _require_sense_of_budget(options: PruneOptions) -> None:
    """Refuse what a budget cannot be looked for with.

    Raises:
        UsageError: it is asked for.
    """
    if options.steps not in (None, 1):
        raise UsageError("is given beside limits", field="--steps", hint="leave it out")
    if any(one.gate.name == "max-fan-in" and one.value < 1 for one in options.budget):
        raise UsageError("leaves no neuron an input", field="--max-fan-in", hint="give 1 or more")
    shaped = options.structure not in (None, UNSTRUCTURED)
    if shaped and options.allocation is not None:
        raise UsageError("channels are shared out by the limits", field="--allocation")
    shaped = shaped or options.allocation is not None
    for limit in options.budget if shaped else ():
        if limit.gate.name in KEEPING:
            raise UsageError(
                "is kept by weights that go one by one, and as a budget shares them out",
                field=limit.gate.flag,
                hint="leave out --structure and --allocation, or give --sparsity",
            )


def _require_reachable(wanted: AccuracyTarget) -> None:
    """Refuse a target that is no share, and a resolution that is no step."""
    accuracy, drop = wanted.accuracy, wanted.drop
    if (accuracy is None) == (drop is None):
        raise UsageError("is given beside --target-accuracy", field=wanted.flag)
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise error_class_for(wanted.flag)(
            f"{accuracy:g} is outside [0, 1]", field=wanted.flag, hint=suggest_share(accuracy)
        )
    if drop is not None and not 0 <= drop < 100:
        raise UsageError(
            f"{drop:g} is no number of percentage points in [0, 100)",
            field=wanted.flag,
            hint="percentage points are written as 1.5",
        )
    if not 1e-4 <= wanted.resolution <= 0.25:
        raise UsageError(f"{wanted.resolution:g} is outside [0.0001, 0.25]", field="--resolution")
