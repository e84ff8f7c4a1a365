"""Run a file of `export --to lava` by lava-dl's netx, and compare spikes.

`python3.10 tests/benchmarks/run_by_lava.py FILE.net INPUT.npy WANTED.npy`, in an environment with
lava-dl 0.6, lava-nc 0.10, numpy 1, scipy, h5py, networkx and asteval: INPUT has the spikes of one
sample, (T, C, H, W) or (T, in), WANTED those that the last layer is to have, (T, ...), as
`run_blocks` of tests/cli/test_cli_export_chains.py computes them. torch is not needed: modules of
lava-dl that would ask for it, and that no file of ours does, are put in as empty ones.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

UNUSED = (
    "lava.lib.dl.netx.sequential_modules",
    "lava.lib.dl.slayer",
    "lava.lib.dl.slayer.neuron",
    "lava.lib.dl.slayer.neuron.rf",
)


def import_netx() -> Any:
    """lava-dl's module of network files, without torch."""
    for name in UNUSED:
        module: Any = ModuleType(name)
        module.__path__, module.__file__, module.neuron_params = [], __file__, dict
        sys.modules[name] = module
    return import_module("lava.lib.dl.netx.hdf5")


def run(path: str, spikes: np.ndarray) -> np.ndarray:
    """The spikes of the last layer, (T, ...), in the bits of Loihi."""
    netx, io = import_netx(), import_module("lava.proc.io")
    configs = import_module("lava.magma.core.run_configs")
    conditions = import_module("lava.magma.core.run_conditions")
    steps = len(spikes)
    network = netx.Network(path, reset_interval=steps, reset_offset=1)
    late = len(network)  # a step from layer to layer
    padded = np.concatenate([spikes, np.zeros((late, *spikes.shape[1:]))]).astype(int)
    source = io.source.RingBuffer(data=padded.T)  # (W, H, C, T)
    sink = io.sink.RingBuffer(shape=network.out.shape, buffer=steps + late)
    source.s_out.connect(network.inp)
    network.out.connect(sink.a_in)
    network.run(
        condition=conditions.RunSteps(num_steps=steps + late),
        run_cfg=configs.Loihi2SimCfg(select_tag="fixed_pt"),
    )
    found = sink.data.get().T[late:]
    network.stop()
    return np.asarray(found)


if __name__ == "__main__":
    _, file, given, wanted = sys.argv
    here, there = run(file, np.load(given)), np.load(wanted)
    print(
        f"{int(here.sum())} spikes, {int(np.abs(here - there).sum())} of them or others otherwise"
    )
    sys.exit(int(not np.array_equal(here, there)))
