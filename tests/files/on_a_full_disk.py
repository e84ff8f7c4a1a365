"""Run commands on a disk of 8 kB that is full; run as a script in a mount namespace of its own.

`python on_a_full_disk.py FOLDER COMMAND...`: mounts it on `FOLDER/disk`.
"""

import subprocess
import sys
from pathlib import Path

from disturbances import command, left_in, made_in

from snnprune.cli import run_app, run_command

FOLDER, COMMANDS = Path(sys.argv[1]), sys.argv[2:]
DISK = FOLDER / "disk"
OLD = {"out.safetensors": b"old" * 1000, "out.mask.safetensors": b"older" * 500}


def main() -> None:
    """Two old files take both of its pages."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", DISK], check=True)
    made_in(FOLDER)
    for name, data in OLD.items():
        (DISK / name).write_bytes(data)
    for name in COMMANDS:
        *words, _ = command(name, FOLDER, new=True)
        assert run_app(run_command, [*words, str(DISK / "out.safetensors")]) == 5
        assert {path.name: path.read_bytes() for path in DISK.iterdir()} == OLD
        assert left_in(DISK) == []


if __name__ == "__main__":
    main()
