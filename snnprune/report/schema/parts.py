"""Parts that several reports have. Counts are stored; rates and shares are in [0, 1]."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

closed = with_config(ConfigDict(extra="forbid"))
Number = float
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@closed
class File(TypedDict):
    path: str
    sha256: NotRequired[Sha256]
    role: NotRequired[str]


@closed
class Fault(TypedDict):
    code: Annotated[int, Field(ge=1, le=143)]
    """The exit code."""
    file: str | None
    field: str | None
    message: str
    hint: str | None


@closed
class Model(TypedDict):
    name: str
    args: NotRequired[dict[str, Any]]
    forward: NotRequired[str | None]
    readout: NotRequired[str]


@closed
class Data(TypedDict):
    name: str
    validation: Share
    seed: int
    evaluation: NotRequired[str]
    """Another set that took the place of validation images."""


@closed
class Totals(TypedDict):
    prunable: Whole
    kept: Whole
    pruned: Whole
    weights: NotRequired[Whole]
    parameters: Whole


@closed
class Link(TypedDict):
    neuron: str
    norms: list[list[str]]
    through: list[str]


@closed
class Layer(TypedDict):
    weight: str
    shape: list[Whole]
    weights: Whole
    kept: Whole
    input_rate: Number | None
    input_values: Literal["binary", "counts", "analog"] | None
    firing_rate: Number | None
    encoding: bool | None
    neuron: str | None
    links: list[Link]
    criterion: str | None
    reason: str | None


@closed
class Channels(TypedDict):
    channels: Whole
    silent: Whole
    saturated: Whole


@closed
class Evaluation(TypedDict):
    samples: Whole
    labelled: Whole
    correct: Whole
    loss_sum: float
    accuracy: Share | None
    loss: float | None
    firing_rates: dict[str, Number]
    activity: dict[str, Channels]
    readout: str
    time_steps: Whole | None
    answers: Whole
    classes: Whole
    images: Literal["test", "validation", "train", "given"]


@closed
class LayerWork(TypedDict):
    dense: Whole
    macs: Whole
    acs: Whole


@closed
class NeuronWork(TypedDict):
    outputs: Whole
    active: Whole
    updates: Whole


@closed
class Workload(TypedDict):
    samples: Whole
    dense: Whole
    macs: Whole
    acs: Whole
    outputs: Whole
    active: Whole
    updates: Whole
    energy_pj: Number
    energy_per_mac_pj: Number
    energy_per_ac_pj: Number
    layers: dict[str, LayerWork]
    neurons: dict[str, NeuronWork]


@closed
class Sizes(TypedDict):
    dense: Whole
    gzip: Whole
    zstd: Whole
    packed: Whole
    bound: Whole


@closed
class Spikes(TypedDict):
    places: list[Whole]
    same: list[Whole]
    spikes: Annotated[list[list[Number]], Field(min_length=2, max_length=2)]
    timed: bool
    firing_rates: Annotated[list[Number], Field(min_length=2, max_length=2)]
    agreement: Share
    agreement_by_step: list[Share]


@closed
class Outputs(TypedDict):
    samples: Whole
    values: Whole
    difference: Number
    cosine: Number
    divergence: Number
    same_class: Whole
    mean_difference: NotRequired[Number]
    mean_cosine: NotRequired[Number]
    mean_divergence: NotRequired[Number]
    same_class_share: NotRequired[Share]


@closed
class Answers(TypedDict):
    both: Whole
    only_first: Whole
    only_other: Whole
    neither: Whole
    labelled: NotRequired[Whole]
    accuracies: NotRequired[list[Share]]


@closed
class Agreement(TypedDict):
    samples: Whole
    spike_agreement: Share | None
    neurons: dict[str, Spikes]
    outputs: Outputs | None
    answers: Answers | None


@closed
class Gate(TypedDict):
    gate: str
    limit: str
    unit: str
    measured: Number | None
    found: str
    met: bool | None


@closed
class Membrane(TypedDict):
    channels: Whole
    silent: Whole
    saturated: Whole
    firing_rate: Number
    histogram: list[Whole]


@closed
class Crisis(TypedDict):
    radius: Number
    flips: Share


@closed
class ScoreHistogram(TypedDict):
    edges: list[Number]
    kept: list[Whole]
    pruned: list[Whole]
    lowest: Annotated[list[Whole], Field(min_length=2, max_length=2)]


@closed
class InputRates(TypedDict):
    before: Number
    after: Number


@closed
class Evidence(TypedDict):
    samples: Whole
    edges: list[Number]
    before: dict[str, Membrane]
    after: dict[str, Membrane]
    crises: dict[str, Crisis]
    input_rates: dict[str, InputRates]
    scores: dict[str, ScoreHistogram]


@closed
class Cost(TypedDict):
    seconds: dict[str, Number]
    peak_memory: Whole | None
    peak_gpu_memory: Whole | None


@closed
class Epoch(TypedDict):
    epoch: Whole
    train_loss: Number
    train_accuracy: Share | None
    validation_accuracy: Share | None
    learning_rate: Number
    skipped: NotRequired[Whole]


@closed
class TicketLayer(TypedDict):
    weight: str
    kept: Whole
    weights: Whole


@closed
class EarlyBird(TypedDict):
    """Of a ticket that was drawn while the dense network trained."""

    epochs: Whole
    distance: Share
    settled: bool


@closed
class Ticket(TypedDict):
    kind: Literal["ticket"]
    method: str
    round: Whole
    sparsity_asked: Share
    k: NotRequired[Share]
    """Of `search`: the share kept, as papers on edge-popup call it."""
    pruned: Whole
    prunable: Whole
    parameters: Whole
    validation_accuracy: Share | None
    test: Evaluation | None
    measured: NotRequired[Evaluation | None]
    """On validation images, or training images, where there are no test images."""
    layers: list[TicketLayer]
    early_bird: NotRequired[EarlyBird]


@closed
class EpochRow(Epoch):
    """Of `metrics.jsonl`."""

    kind: Literal["epoch"]
    method: NotRequired[str]
    round: NotRequired[Whole]


Row = Annotated[EpochRow | Ticket, Field(discriminator="kind")]
"""A line of `metrics.jsonl`."""


@closed
class Point(TypedDict):
    method: str
    sparsity_asked: Share
    sparsity: Share
    pruned: list[Whole]
    prunable: list[Whole]
    accuracies: list[Share]
    accuracy_mean: Share | None
    accuracy_deviation: Number | None
    densities: dict[str, Share]
    firing_rates: dict[str, Number]


@closed
class Summary(TypedDict):
    accuracies_on: Literal["test", "validation", "train"]
    seeds: Whole
    dense: Point | None
    points: list[Point]
