"""How what is left is tuned; importing this imports no torch."""

from dataclasses import dataclass

from snnprune.measure.quantities import Natural


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Of the repair `tune`; see `snnprune.pruning.repair.tuning`."""

    steps: int = 960
    """Of the optimizer."""
    learning_rate: float = 0.02
    """Its peak."""
    images: int = 4096
    """Unlabelled training images, or as many as there are."""
    use_labels: bool = False
    """Whether the loss is the cross-entropy of labels and not the distance to the dense network."""
    surrogate: bool = False
    """Whether comparisons get a gradient of snnprune's own, as the network has none there."""
    augment: tuple[str, ...] = ()
    """`flip`, `shift` or both: what may be done to an image without changing what it shows."""


@dataclass(frozen=True, kw_only=True)
class TuneOutcome:
    """What tuning was done, and how far the outputs were from those of the dense network.

    A loss is the mean over the steps of some eighths of the way: t^2 KL of the softmax of the
    logits / t, or with labels the cross-entropy.
    """

    steps: Natural
    images: Natural | None
    """None: they were not held, and went by batch by batch."""
    learning_rate: float
    use_labels: bool
    surrogate: bool
    augment: tuple[str, ...]
    temperature: float | None
    """Of the logits, means over time; None with labels."""
    kept_before: Natural
    """Weights that were kept as it began."""
    kept: Natural
    loss_at_first: float
    loss_at_goal: float
    """As soon as all weights that were to go had gone."""
    loss_at_last: float
