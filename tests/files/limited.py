"""Commands in an address space that is too small; run as a script.

`python limited.py FOLDER COUNT`: each command runs under COUNT limits on top of what the process
has already, the first ones smaller than its file, in processes forked from this one. It ends with
exit code 0, 3 or 7, by no signal and with one line, and leaves the output as it was unless it is
done. Prints how many of each code there were.
"""

import collections
import contextlib
import io
import json
import os
import resource
import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save_file

import snnprune.checkpoint.packed
import snnprune.cli.console
import snnprune.cli.prune_tables
import snnprune.jobs.calibrate
import snnprune.jobs.diff
import snnprune.jobs.export
import snnprune.jobs.inspect
import snnprune.jobs.prune.prune  # noqa: F401  # imported once for all processes
from snnprune.cli import run_app, run_command

SIDE = 1024  # 12 weights of 4 MB each
LEAST = 2**23  # bytes beyond what Python and torch have taken: less, and not even they work
OWN = """
import torch
from torch import nn


class Lif(nn.Module):
    def forward(self, x):
        return ((x - 0.1) >= 0).to(x)


def net():
    layers = [part for _ in range(12) for part in (nn.Linear(1024, 1024, bias=False), Lif())]
    return nn.Sequential(*layers)


def batches():
    return [(torch.rand(8, 1024), torch.arange(8))]
"""


def size_now() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def ended(words: list[str], room: int) -> tuple[int, str]:
    """Exit code and what was told."""
    reading, writing = os.pipe()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    child = os.fork()
    if not child:
        try:
            os.dup2(writing, 2)
            err = io.StringIO()
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
                limit = size_now() + room
                resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
                code = run_app(run_command, words)
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        except BaseException:
            traceback.print_exc()
            code = 99
        os.write(writing, err.getvalue().encode()[-4000:])
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def main() -> None:
    """Run each command under each limit."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    drawn = torch.Generator().manual_seed(0)
    tensors = {f"{2 * row}.weight": torch.rand(SIDE, SIDE, generator=drawn) for row in range(12)}
    save_file(tensors, folder / "big.safetensors")
    torch.save(tensors, folder / "big.pth")
    (folder / "own.py").write_text(OWN)
    big, out = str(folder / "big.safetensors"), folder / "out.safetensors"
    own = ["--model", f"{folder}/own.py:net", "--data", f"{folder}/own.py:batches"]
    end = ["-q", "--force", "-o", str(out)]
    commands = {
        "inspect": ["inspect", str(folder / "big.pth"), "--json"],
        "prune": ["prune", big, "--sparsity", "0.5", *end],
        "diff": ["diff", big, str(folder / "big.pth"), "--json"],
        "export": ["export", big, "--to", "packed", *end],
        "calibrate": ["calibrate", big, *own, *end],
    }
    counted: dict[str, collections.Counter[str]] = {}
    largest = 8 * 12 * 4 * SIDE * SIDE
    for name, words in commands.items():
        found = counted[name] = collections.Counter()
        for step in range(count):
            out.write_bytes(b"precious")
            code, told = ended(words, LEAST + largest * step * step // (count - 1) ** 2)
            assert code in (0, 3, 7), (name, step, code, told)
            assert "Traceback" not in told, (name, step, told)
            assert "terminate called" not in told, (name, step, told)
            assert code == 0 or told.count("error: ") == 1, (name, step, told)
            assert code == 0 or out.read_bytes() == b"precious", (name, step)
            found[str(code)] += 1
        assert [path.name for path in folder.glob(".snnprune-*")] == []
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
