"""What of the options of `sensitivity` can be refused before the work is done."""

from __future__ import annotations

from collections.abc import Collection

from snnprune.errors import UsageError
from snnprune.files.writing import require_free
from snnprune.jobs.sensitivity.options import SensitivityOptions
from snnprune.pruning.prune import require_sparsity
from snnprune.pruning.repair import require_repair


def require_sense(options: SensitivityOptions) -> None:
    """Everything that can be refused before the checkpoint is read.

    Raises:
        UsageError: a name is unknown, or a sparsity is none.
        OutputError: a file is in the way.
    """
    for sparsity in options.sparsities:
        require_sparsity(sparsity, field="--sparsities")
    require_sparsity(options.sparsity)
    if len({f"{sparsity:g}" for sparsity in options.sparsities}) < len(options.sparsities):
        raise UsageError("names a sparsity twice", field="--sparsities")
    if options.repair is not None:
        require_repair(options.repair)
    for path in options.files:
        require_free(path, force=options.force, inputs=options.list_inputs())


def require_reach(options: SensitivityOptions, sizes: Collection[int]) -> None:
    """Refuse, before the layers are tried, a total that no layer is measured far enough for.

    Raises:
        UsageError: it is beyond the highest of the sparsities.
    """
    highest = max(options.sparsities)
    if round(options.sparsity * sum(sizes)) > sum(round(highest * size) for size in sizes):
        raise UsageError(
            f"{options.sparsity:g} of all weights is more than the {highest:g} that is measured",
            field="--sparsity",
            hint="give higher --sparsities",
        )
