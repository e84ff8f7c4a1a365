"""A NIR file: made, written, and read back before it takes its place."""

from __future__ import annotations

from pathlib import Path

import torch

from snnprune.checkpoint import read_checkpoint
from snnprune.exporting.nir.constants import time_step
from snnprune.exporting.nir.graph import require_known, require_same_course
from snnprune.exporting.nir.libraries import graph_of
from snnprune.exporting.nir.notes import notes_on
from snnprune.exporting.packages import required, speaking
from snnprune.exporting.running import Running
from snnprune.exporting.weights import layer_values, require_weights
from snnprune.files import replacing


@torch.no_grad()
def write_nir(path: Path, seen: Running) -> tuple[str, ...]:
    """Write what the network's library makes of it, if that is the network; notes on it.

    Raises:
        InputError: the library cannot export it, or nothing like it came out.
        OutputError: the file cannot be written.
    """
    layers = layer_values(seen.network)  # an exporter may share their memory
    graph = graph_of(seen)
    require_known(graph, seen)
    nir = required("nir", to="nir")
    with replacing(path) as temporary:
        with speaking("nir", to="nir"):
            nir.write(temporary, graph)
            back = nir.read(temporary)
        require_weights(read_checkpoint(temporary).tensors, layers)
        require_same_course(back, seen)
        step = time_step(back, seen)
    return notes_on(seen, step)
