"""Pruning by magnitude from file to file: ours, torch.nn.utils.prune, and a copy of the bytes.

    python tests/benchmarks/bench_stored.py [MILLIONS] [ROUNDS] [SHARDS] [--no-peer]

All are processes of their own that take turns. Of the peer two times are told: of the process, and
of `global_unstructured` with `remove` alone. Of one file, `diff` with what it became is timed too.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """
import sys, time
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune
tensors = load_file(sys.argv[1])
modules = []
for tensor in tensors.values():
    module = nn.Linear(1, 1, bias=False)
    module.weight = nn.Parameter(tensor)
    modules.append(module)
start = time.monotonic()
named = [(module, "weight") for module in modules]
prune.global_unstructured(named, pruning_method=prune.L1Unstructured, amount=0.9)
for module in modules:
    prune.remove(module, "weight")
print(time.monotonic() - start)
held = {key: module.weight.detach() for key, module in zip(tensors, modules)}
save_file(held, sys.argv[2])
"""
COPY = """
import os, shutil, sys
for source in sys.argv[1:-1]:
    target = os.path.join(sys.argv[-1], os.path.basename(source) + ".copy")
    shutil.copyfile(source, target)
    with open(target) as file:
        os.fsync(file.fileno())
    os.unlink(target)
"""


WRITE = """
import json, sys
import torch
from safetensors.torch import save_file
folder, layers, shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draws, where = torch.Generator().manual_seed(0), {}
for shard in range(shards):
    keys = [f"l{i}.weight" for i in range(shard, layers, shards)]
    made = {key: torch.randn(2000, 2000, generator=draws) for key in keys}
    save_file(made, f"{folder}/model-{shard}.safetensors")
    where |= dict.fromkeys(keys, f"model-{shard}.safetensors")
with open(f"{folder}/model.safetensors.index.json", "w") as file:
    json.dump({"weight_map": where}, file)
"""


def write_shards(folder: Path, millions: float, shards: int) -> Path:
    """A file, or the index of several, of layers of 4 million weights.

    In another process: the peak of those to come would begin with the memory of this one.
    """
    layers = str(max(1, round(millions / 4)))
    subprocess.run([sys.executable, "-c", WRITE, folder, layers, str(shards)], check=True)
    return folder / ("model-0.safetensors" if shards == 1 else "model.safetensors.index.json")


def measure(words: list[str]) -> tuple[float, float, str]:
    """Seconds, peak MB of the process, and what it printed."""
    start = time.monotonic()
    done = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    said = done.stdout.read()
    _, status, usage = os.wait4(done.pid, 0)
    assert status == 0, words
    return time.monotonic() - start, usage.ru_maxrss / 1e3, said


def main() -> None:
    """Print medians and ratios."""
    given = [word for word in sys.argv[1:] if not word.startswith("-")]
    millions, rounds, shards = (float(one) for one in [*given, *("40", "5", "1")[len(given) :]])
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_shards(folder, millions, int(shards))
        sources = [str(path) for path in folder.glob("*.safetensors")]
        out = str(folder / "out" / "pruned.safetensors")
        ours = ["prune", str(source), "--sparsity", "0.9", "--criterion", "magnitude", "-o", out]
        for _ in range(int(rounds)):
            (folder / "out").mkdir()
            runs = {
                "ours": [sys.executable, "-m", "snnprune", *ours, "--json"],
                "copy": [sys.executable, "-c", COPY, *sources, str(folder / "out")],
            }
            if shards == 1:
                compared = ["diff", str(source), out, "--json"]
                runs["ours, diff"] = [sys.executable, "-m", "snnprune", *compared]
            if "--no-peer" not in sys.argv:
                runs["torch"] = [sys.executable, "-c", PEER, sources[0], out + ".torch"]
            for who, words in runs.items():
                seconds, peak, said = measure(words)
                found.setdefault(who, []).append((seconds, peak))
                if who == "torch":
                    found.setdefault("torch, the calls alone", []).append((float(said), peak))
                if who == "ours":
                    within = sum(json.loads(said)["cost"]["seconds"].values())
                    found.setdefault("ours, the work alone", []).append((within, peak))
            shutil.rmtree(folder / "out")
    base = statistics.median(seconds for seconds, _ in found["ours"])
    for who, each in found.items():
        times = [seconds for seconds, _ in each]
        print(
            f"{who:24} {statistics.median(times):7.2f} s  ({min(times):.2f} to {max(times):.2f})  "
            f"{statistics.median(times) / base:6.2f} x ours  "
            f"peak {max(peak for _, peak in each):,.0f} MB"
        )


if __name__ == "__main__":
    main()
