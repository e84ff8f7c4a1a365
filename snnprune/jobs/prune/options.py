"""What `snnprune prune` is asked for, and which files that makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from snnprune.checkpoint.write import require_writable_as
from snnprune.errors import UsageError, error_class_for
from snnprune.files.writing import require_apart, require_free
from snnprune.jobs.consent import find_code, format_as_flag, require_consent
from snnprune.jobs.prune.tune_options import TuneOptions
from snnprune.jobs.targets.options import TargetOptions
from snnprune.measure.workload import Energy
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.prune import require_sparsity
from snnprune.pruning.repair import require_repair
from snnprune.pruning.structure.structure import CHANNELS, UNSTRUCTURED, Structure, parse_structure
from snnprune.recipe.pruning import PruneSection, load_prune_section
from snnprune.report.gates.gate import Limit
from snnprune.text import suggest_share


@dataclass(frozen=True, kw_only=True)
class AccuracyTarget:
    """An accuracy to hold, in place of a sparsity; one of the two is set."""

    accuracy: float | None = None
    """In [0, 1]."""
    drop: float | None = None
    """Percentage points below the dense network."""
    resolution: float = 0.005
    """Of the sparsity that is looked for."""

    @property
    def flag(self) -> str:
        """The flag that asked for it."""
        return "--target-accuracy" if self.drop is None else "--max-accuracy-drop"

    def below(self, dense: float) -> float:
        """The accuracy to hold, in [0, 1], where the dense network has `dense`."""
        return dense - self.drop / 100 if self.drop is not None else self.accuracy or 0.0


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What the command line asks for; None takes the default that fits the target."""

    target: TargetOptions
    out: Path
    sparsities: tuple[float, ...] = ()
    accuracy_target: AccuracyTarget | None = None
    criterion: str | None = None
    allocation: str | None = None
    repair: str | None = None
    steps: int | None = None
    structure: str | None = None
    tuning: TuneOptions = field(default_factory=TuneOptions)
    layers: Mapping[str, float] = field(default_factory=dict)
    """The sparsity of layers that have one of their own, by weight key."""
    recipe: Path | None = None
    trust_recipe: bool = False
    """Whether code runs that the recipe alone names."""
    calibration: Path | None = None
    report_folder: Path | None = None
    limits: tuple[Limit, ...] = ()
    """Gates."""
    energy: Energy = field(default_factory=Energy)
    junit: Path | None = None
    evaluate: bool = True
    eval_samples: int | None = None
    force: bool = False

    def list_inputs(self) -> list[Path]:
        """The files that are read, none of which may be the output."""
        return [*self.target.list_inputs(), *filter(None, (self.calibration, self.recipe))]

    @property
    def places(self) -> tuple[OutputPaths, ...]:
        """Where the files of each sparsity go; of a target there is one."""
        if len(self.sparsities) < 2:
            return (OutputPaths(out=self.out, report_folder=self.report_folder),)
        return tuple(
            OutputPaths(
                out=self.out.with_name(f"{self.out.stem}-{sparsity:g}{self.out.suffix}"),
                report_folder=self.report_folder,
                report_name=f"report-{sparsity:g}.json",
            )
            for sparsity in self.sparsities
        )


@dataclass(frozen=True, kw_only=True)
class OutputPaths:
    """A pruned file and what lies beside it."""

    out: Path
    report_folder: Path | None = None
    report_name: str = "report.json"

    @property
    def mask_file(self) -> Path:
        """Where the masks go."""
        return self.out.with_name(f"{self._name}.mask.safetensors")

    @property
    def report_file(self) -> Path:
        """Where the report goes."""
        if self.report_folder is not None:
            return self.report_folder / self.report_name
        return self.out.with_name(f"{self._name}.report.json")

    @property
    def _name(self) -> str:
        """What the files beside the output begin with: two containers do not share them."""
        return self.out.stem if self.out.suffix == ".safetensors" else self.out.name

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """All three."""
        return self.out, self.mask_file, self.report_file


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
    require_writable_as(options.target.checkpoint, options.out)
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
