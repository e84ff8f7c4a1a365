"""Reads each file that is named on stdin, and tells what came of it, what it took and how long."""

import json
import resource
import sys
import time
from pathlib import Path

from snnprune.checkpoint import read_checkpoint
from snnprune.errors import InputError


def peak() -> int:
    """The most memory that this process had since it was last asked to forget that, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measured(path: Path) -> dict[str, object]:
    """What reading it came to; a fault that is no refusal goes through."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = peak(), time.process_time()
    try:
        answer = f"read {','.join(read_checkpoint(path).tensors)}"
    except InputError as error:
        answer = str(error)
    seconds = time.process_time() - began
    return {"answer": answer, "seconds": seconds, "bytes": peak() - before}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    for line in sys.stdin:
        print(json.dumps({"path": line.strip(), **measured(Path(line.strip()))}), flush=True)
