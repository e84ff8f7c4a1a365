# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of NIR graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from corpus.bench import Bench
from corpus.case import Files, add, good
from corpus.spoilt import spoils

FILE = "graph.nir"
FC = "node/nodes/fc"


def graph(bend: Callable[[Any, Path], object] = lambda file, folder: None) -> bytes:
    """A graph of a linear layer and a neuron, as nir.write lays it out, then bent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with h5py.File(path, "w") as file:
            _fill(file)
            bend(file, Path(folder))
        return path.read_bytes()


def _fill(file: Any) -> None:
    draws = np.random.default_rng(0)
    file["version"], file["node/type"] = "1.0.4", "NIRGraph"
    file["node/edges"] = np.array([[b"input", b"fc"], [b"fc", b"lif"]])
    file[f"{FC}/type"], file["node/nodes/lif/type"] = "Affine", "LIF"
    file[f"{FC}/weight"] = draws.normal(size=(6, 8)).astype(np.float32)
    file[f"{FC}/bias"] = draws.normal(size=6).astype(np.float32)
    for name in ("tau", "r", "v_leak", "v_threshold"):
        file[f"node/nodes/lif/{name}"] = np.ones(6)


def replaced(file: Any, name: str, **how: Any) -> None:
    """Another dataset in the place of one."""
    del file[name]
    file.create_dataset(name, **how)


def linked(file: Any, name: str, link: Any) -> None:
    """A link in the place of a dataset."""
    del file[name]
    file[name] = link


def _in_itself(file: Any) -> None:
    file["node/nodes/again"] = file["node"]


@good("nir")
def a_graph(bench: Bench) -> Files:
    return {FILE: graph()}


@good("nir")
def compressed_numbers(bench: Bench) -> Files:
    data = np.ones((6, 8), np.float32)
    return {FILE: graph(lambda f, _: replaced(f, f"{FC}/weight", data=data, compression="gzip"))}


@good("nir")
def names_that_are_hostile_to_whoever_shows_them(bench: Bench) -> Files:
    def bend(file: Any, _: Path) -> None:
        for name in ("::error::x", "\x1b[31m", "\u202e", "[bold]"):
            file[f"node/nodes/{name}/type"] = "Linear"
            file[f"node/nodes/{name}/weight"] = np.ones((2, 2))

    return {FILE: graph(bend)}


W = f"{FC}/weight"
for _name, _bend in {
    "a link within": lambda f, _: linked(f, W, h5py.SoftLink("/node/nodes/fc/bias")),
    "a link to nothing": lambda f, _: linked(f, W, h5py.SoftLink("/nowhere")),
    "a link to another file": lambda f, _: linked(f, W, h5py.ExternalLink("/etc/passwd", "/x")),
    "numbers in another file": lambda f, d: replaced(
        f, W, shape=(6, 8), dtype="f4", external=[(b"/etc/passwd", 0, 192)]
    ),
    "numbers of another dataset": lambda f, d: _virtual(f),
    "2 ** 40 numbers": lambda f, _: replaced(f, W, shape=(2**20, 2**20), dtype="f4", chunks=(8, 8)),
    "2 ** 40 numbers compressed": lambda f, _: replaced(
        f, W, shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024), compression="gzip"
    ),
    "weights of NaN": lambda f, _: replaced(f, W, data=np.full((6, 8), np.nan, np.float32)),
    "weights of text": lambda f, _: replaced(f, W, data=np.array([[b"x"] * 8] * 6)),
    "weights of numbers and names": lambda f, _: replaced(
        f, W, data=np.zeros((6, 8), [("a", "f4"), ("b", "i4")])
    ),
    "weights of whole numbers": lambda f, _: replaced(f, W, data=np.ones((6, 8), int)),
    "complex weights": lambda f, _: replaced(f, W, data=np.ones((6, 8), complex)),
    "weights of no dimensions": lambda f, _: replaced(f, W, data=np.float32(1)),
    "weights of nothing": lambda f, _: replaced(f, W, shape=(0, 8), dtype="f4"),
    "an empty dataset": lambda f, _: replaced(f, W, data=h5py.Empty("f4")),
    "a graph in itself": lambda f, _: _in_itself(f),
    "a name that is no text": lambda f, _: f.__setitem__(b"node/nodes/\xff", 1),
    "no node": lambda f, _: f.__delitem__("node"),
    "a node that is a number": lambda f, _: replaced(f, "node", data=1),
    "nodes that are a number": lambda f, _: replaced(f, "node/nodes", data=1),
    "no type": lambda f, _: f.__delitem__("node/type"),
    "no nodes": lambda f, _: f.__delitem__("node/nodes"),
}.items():
    add("nir", _name, lambda bench, bend=_bend: {FILE: graph(bend)})


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(6, 8), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(6, 8))
    del file[W]
    file.create_virtual_dataset(W, layout)


spoils("nir", FILE, a_graph)
