"""What a chip has and allows, as a YAML file of it says. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from snnprune.recipe.sections import Bits, Count, Name, Section

LayerKind = Literal["linear", "conv1d", "conv2d", "conv3d"]
NeuronKind = Literal["if", "lif"]
Reset = Literal["zero", "subtract"]
Pooling = Literal["average", "max"]

Counts = Annotated[tuple[Count, ...], Field(strict=False)]
Texts = Annotated[tuple[Name, ...], Field(strict=False)]


class Core(Section):
    """Cores of one kind; what is null is not limited, or nobody says."""

    count: Count = Field(description="how many there are")
    weights: Count | None = Field(
        default=None, description="entries of a core's weight memory, of weight_bits each"
    )
    neurons: Count | None = Field(default=None, description="entries of its neuron memory")
    biases: Count | None = Field(default=None, description="biases that it holds")
    inputs: Count | None = Field(
        default=None, description="neurons whose spikes one of its neurons may take in"
    )


class Limits(Section):
    """Limits of a layer or of the whole chip; what is null is not limited, or nobody says."""

    input_channels: Count | None = Field(
        default=None, description="channels that enter the network, times their places"
    )
    input_side: Count | None = Field(default=None, description="height and width of an input")
    output_side: Count | None = Field(default=None, description="height and width of an output")
    channels: Count | None = Field(default=None, description="output channels of a layer")
    kernel_side: Count | None = Field(default=None, description="height and width of a kernel")
    padding: Count | None = Field(default=None, description="places of padding on a side")
    strides: Counts | None = Field(default=None, description="strides that there are")
    pool_sides: Counts | None = Field(default=None, description="sides of pools that there are")
    fan_in: Count | None = Field(default=None, description="synapses of one neuron")
    fan_out_layers: Count | None = Field(
        default=None, description="layers that the spikes of one layer may go to"
    )
    layers: Count | None = Field(default=None, description="least layers of neurons")
    neurons: Count | None = Field(default=None, description="neurons of the chip")
    hidden_neurons: Count | None = Field(default=None, description="of all layers but the last")
    first_neurons: Count | None = Field(
        default=None, description="hidden neurons that the input reaches"
    )
    last_hidden_neurons: Count | None = Field(
        default=None, description="hidden neurons that reach the output"
    )
    output_neurons: Count | None = Field(default=None, description="of the last layer")
    synapses: Count | None = Field(default=None, description="synapses of the chip")


class Chip(Section):
    """A chip as the design-rule check sees it."""

    title: Name = Field(description="what people call it")
    sources: Texts = Field(
        min_length=1, description="where each number is from: package and version, paper, page"
    )
    notes: Texts = Field(default=(), description="what is not checked, or only roughly")
    placement: Literal["layer-per-core", "spread", "together"] = Field(
        description="each layer on one core of its own, on as many cores as it needs, or all "
        "layers together on one"
    )
    storage: Literal["dense", "sparse"] = Field(
        description="whether a weight that is 0 takes room: it does in dense"
    )
    padded: bool = Field(
        default=False, description="whether sizes in memory are rounded up to powers of two"
    )
    shared_kernels: bool = Field(
        default=True, description="whether a convolution's weights are there once, not per place"
    )
    weight_bits: Bits = Field(description="most bits of an integer weight")
    weight_scale: Literal["layer", "channel"] = Field(
        description="whether integers have one scale for each layer, or for each output channel"
    )
    kinds: Annotated[tuple[LayerKind, ...], Field(strict=False, min_length=1)] = Field(
        description="linear, conv1d, conv2d, conv3d: the layers that it runs"
    )
    neurons: Annotated[tuple[NeuronKind, ...], Field(strict=False, min_length=1)] = Field(
        description="if: keeps its whole membrane, lif: a share of it"
    )
    resets: Annotated[tuple[Reset, ...], Field(strict=False, min_length=1)] = Field(
        default=("zero", "subtract"), description="what a spike does to the membrane"
    )
    shift_decay: bool = Field(
        default=False, description="whether the membrane keeps 1 - 2^-n of itself, n whole"
    )
    pooling: Annotated[tuple[Pooling, ...], Field(strict=False)] = Field(
        default=(), description="average, max: of spikes on their way to the next layer"
    )
    groups: bool = Field(default=False, description="whether a convolution may have groups")
    dilation: bool = Field(default=False, description="whether it may be dilated")
    square_kernels: bool = Field(default=False, description="whether kernels have to be square")
    summed_currents: bool = Field(
        default=False, description="whether several layers may drive one neuron"
    )
    recurrent: bool = Field(default=False, description="whether spikes may go back")
    spiking_output: bool = Field(
        default=True, description="whether the last layer needs neurons, to be read"
    )
    cores: Annotated[tuple[Core, ...], Field(strict=False, min_length=1)] = Field(
        description="the cores, one entry for each kind"
    )
    limits: Limits = Field(default=Limits(), description="limits of a layer and of the chip")

    @field_validator("cores")
    @classmethod
    def _one_kind_where_any_will_do(
        cls, cores: tuple[Core, ...], info: ValidationInfo
    ) -> tuple[Core, ...]:
        placement = info.data.get("placement")
        if placement in ("spread", "together") and len(cores) > 1:
            raise PydanticCustomError(
                "cores", "placement {placement} needs cores of one kind", {"placement": placement}
            )
        return cores

    @property
    def sparse(self) -> bool:
        """Whether a weight that is 0 takes no room."""
        return self.storage == "sparse"
