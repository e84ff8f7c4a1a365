"""What `prune` is asked for: completed by its recipe and its structure, and checked."""

from __future__ import annotations

from dataclasses import replace

from snnprune.checkpoint.write import require_writable_as
from snnprune.errors import UsageError, error_class_for
from snnprune.errors.text import suggest_share
from snnprune.files.writing import require_apart, require_free
from snnprune.jobs.consent import find_code, format_as_flag, require_consent
from snnprune.jobs.prune.options import AccuracyTarget, PruneOptions
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.prune import require_sparsity
from snnprune.pruning.repair import require_repair
from snnprune.pruning.structure.structure import CHANNELS, UNSTRUCTURED, Structure, parse_structure
from snnprune.recipe.pruning import PruneSection, load_prune_section


def complete_options(options: PruneOptions) -> PruneOptions:
    """The options with what their recipe says where the flags say nothing, all of it checked.

    Raises:
        UsageError: something is unknown, missing or contradicts something else.
        InputError: the recipe cannot be used, or names code without the user's consent.
        OutputError: a file is in the way.
    """
    if options.recipe is not None:
        section = load_prune_section(options.recipe)
        _require_consent(options, section)
        options = _apply_recipe(options, section)
    _require_names(options)
    options = _apply_pattern(options)
    _require_one_goal(options)
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
        layers=section.layers,
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


def require_allocation(structure: Structure, allocation: str | None) -> None:
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
        require_allocation(structure, options.allocation)


def _require_one_goal(options: PruneOptions) -> None:
    """Refuse a command without a sparsity or with more goals than one."""
    for sparsity in options.sparsities:
        require_sparsity(sparsity)
    if len({f"{sparsity:g}" for sparsity in options.sparsities}) < len(options.sparsities):
        raise UsageError("names a sparsity twice", field="--sparsity")
    wanted = options.accuracy_target
    if wanted is None:
        if not options.sparsities and not options.layers:
            raise UsageError(
                "missing", field="--sparsity", hint="or give --target-accuracy or a recipe with one"
            )
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
