"""Each command once, by its exit code; run as a script, with nothing but snnprune installed."""

import subprocess
import sys
from pathlib import Path

STEPS = (
    ("env", "--json"),
    ("recipes", "ls"),
    ("train", "--recipe", "smoke", "--out", "run"),
    ("inspect", "run/model.safetensors", "--json"),
    ("calibrate", "run/model.safetensors", "-o", "cal.safetensors"),
    ("score", "run/model.safetensors", "--calibration", "cal.safetensors", "-o", "s.safetensors"),
    ("prune", "run/model.safetensors", "--sparsity", "0.8", "-o", "p.safetensors"),
    (
        "prune",
        "run/model.safetensors",
        "--sparsity",
        "0.5",
        "--repair",
        "lsq",
        "-o",
        "q.safetensors",
    ),
    ("eval", "p.safetensors", "--json"),
    ("diff", "run/model.safetensors", "p.safetensors", "--report", "diff"),
    ("check", "p.safetensors", "--min-sparsity", "0.8"),
    ("export", "p.safetensors", "--to", "packed", "-o", "packed.safetensors"),
    ("sensitivity", "run/model.safetensors", "-o", "sensitivity"),
    ("finetune", "p.safetensors", "--recipe", "smoke", "--out", "tuned"),
    ("imp", "--recipe", "smoke", "--out", "imp", "--set", "imp.rounds=1"),
)


def main() -> int:
    """The number of commands that failed."""
    failed = 0
    for words in STEPS:
        command = [sys.executable, "-W", "ignore", "-m", "snnprune", *words, "-q"]
        if words[0] in ("env", "recipes"):
            command.pop()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print("ok  " if done.returncode == 0 else "FAIL", *words, flush=True)
        if done.returncode:
            failed += 1
            print(done.stderr[-2000:])
    print(f"{len(STEPS) - failed} of {len(STEPS)} commands work in {Path.cwd()}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
