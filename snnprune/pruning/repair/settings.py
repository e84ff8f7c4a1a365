"""How what is left is tuned; importing this imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Of the repair `tune`; see `snnprune.pruning.repair.tuning`."""

    steps: int = 480
    """Of the optimizer."""
    learning_rate: float = 0.01
    """Its peak."""
    images: int = 4096
    """Unlabelled training images, or as many as there are."""
    use_labels: bool = False
    """Whether the loss is the cross-entropy of labels and not the distance to the dense network."""
    augment: tuple[str, ...] = ()
    """`flip`, `shift` or both: what may be done to an image without changing what it shows."""
