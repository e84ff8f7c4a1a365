"""What packed files weigh, beside gzip, zstd and the entropy bound.

    python tests/benchmarks/bench_packed.py [CHECKPOINT]

Of a checkpoint, or without one of `res-snn-19` with random weights, pruned by global magnitude.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.naming import is_prunable
from snnprune.checkpoint.packed import pack
from snnprune.checkpoint.safetensors import list_bytes
from snnprune.export import measure_sizes
from snnprune.models import ModelSpec, build_model

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
PRECISIONS = ("exact", "float16", "int8")


def pruned(tensors: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Without the smallest weights of all."""
    weights = [key for key, tensor in tensors.items() if is_prunable(key, tensor)]
    sizes = torch.cat([tensors[key].abs().flatten() for key in weights])
    cut = sizes.kthvalue(round(sparsity * len(sizes))).values
    return {
        key: tensor.masked_fill(tensor.abs() <= cut, 0) if key in weights else tensor
        for key, tensor in tensors.items()
    }


def main() -> None:
    """Print a table in Markdown, in percent of the dense tensors."""
    if len(sys.argv) > 1:
        tensors = dict(read_checkpoint(Path(sys.argv[1])).tensors)
    else:
        torch.manual_seed(0)
        tensors = build_model(ModelSpec(name="res-snn-19", args={})).state_dict()
    dense = sum(tensor.nbytes for tensor in tensors.values())
    print(f"dense: {dense:,} bytes\n")
    titles = ["sparsity", "gzip", "zstd", "exact", "bound", "float16", "int8", "bound", "file"]
    print(f"| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|")
    for sparsity in SPARSITIES:
        found = pruned(tensors, sparsity)
        weights = [key for key, tensor in found.items() if is_prunable(key, tensor)]
        packings = {name: pack(found, precision=name, lossy=weights) for name in PRECISIONS}
        sizes = measure_sizes(list_bytes(found.values()), packings["exact"], whole=dense)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "packed.safetensors"
            packings["exact"].write(path, {})
            file = path.stat().st_size
        stored = {name: packing.count_bytes() for name, packing in packings.items()}
        over = {name: packing.count_bytes() / packing.bound for name, packing in packings.items()}
        cells = [
            f"{sparsity:.0%}",
            *(f"{count / dense:.2%}" for count in (sizes.gzip, sizes.zstd, stored["exact"])),
            f"{over['exact']:.3f}",
            *(f"{stored[name] / dense:.2%}" for name in ("float16", "int8")),
            f"{over['int8']:.3f}",
            f"{file / dense:.2%}",
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
