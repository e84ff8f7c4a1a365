"""Commands that work, shown at the end of each `--help`; after a backslash a line goes on."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "inspect": (
        "snnprune inspect net.pth",
        "snnprune inspect net.pth --model nets.py:build --data nets.py:batches",
    ),
    "calibrate": (
        "snnprune calibrate net.safetensors --samples 256 -o statistics.safetensors",
        "snnprune calibrate net.pth --model nets.py:build --data nets.py:batches \\\n"
        "  -o statistics.safetensors",
    ),
    "score": (
        "snnprune score net.safetensors -o scores.safetensors",
        "snnprune score net.safetensors --criterion magnitude --report scores",
    ),
    "prune": (
        "snnprune prune net.safetensors --sparsity 0.9 -o pruned.safetensors",
        "snnprune prune net.safetensors --max-accuracy-drop 1 --report report \\\n"
        "  -o smallest.safetensors",
        "snnprune prune net.safetensors --max-synops 2e6 -o small.safetensors",
        "snnprune prune net.pth --model nets.py:build --data nets.py:batches \\\n"
        "  --sparsity 0.8 -o pruned.pth",
        "snnprune prune net.pth --model nets.py:build --data nets.py:batches \\\n"
        "  --chip speck -o on-speck.pth",
    ),
    "eval": (
        "snnprune eval net.safetensors",
        "snnprune eval net.pth --model nets.py:build --data nets.py:batches",
    ),
    "diff": (
        "snnprune diff net.safetensors pruned.safetensors",
        "snnprune diff net.safetensors pruned.safetensors --samples 100 --report diff",
    ),
    "check": (
        "snnprune check pruned.safetensors --min-sparsity 0.9 --max-size 1MB",
        "snnprune check pruned.safetensors --baseline net.safetensors \\\n"
        "  --max-accuracy-drop 2 --max-dead 5% --junit gates.xml",
    ),
    "sensitivity": (
        "snnprune sensitivity net.safetensors --sparsities 0.5,0.9 -o sensitivity",
        "snnprune sensitivity net.safetensors --criterion magnitude --eval-samples 256",
    ),
    "export": (
        "snnprune export pruned.safetensors --to packed -o packed.safetensors",
        "snnprune export net.pth --to nir --model nets.py:build \\\n"
        "  --data nets.py:batches -o net.nir",
    ),
    "chips ls": ("snnprune chips ls",),
    "chips show": ("snnprune chips show loihi-2",),
    "chips cp": ("snnprune chips cp template mine.yaml",),
    "train": (
        "snnprune train --recipe fashion-mnist-mini --out runs/mini",
        "snnprune train --recipe cifar10 --set training.epochs=30 --dry-run",
        "snnprune train --resume --out runs/mini",
    ),
    "finetune": (
        "snnprune finetune pruned.safetensors \\\n  --recipe fashion-mnist-mini --out runs/more",
    ),
    "imp": (
        "snnprune imp --recipe smoke --out runs/tickets",
        "snnprune imp --recipe fashion-mnist-mini --seeds 0,1,2 --out runs/three",
    ),
    "search": ("snnprune search --recipe fashion-mnist-mini --out runs/search",),
    "theory crisis": ("snnprune theory crisis net.safetensors --sparsity 0.5 -o crisis",),
    "theory width": ("snnprune theory width --neurons 3 --layers 2 --delta 0.2",),
    "theory construct": ("snnprune theory construct --trials 20 --seed 1",),
    "analyze quantize": ("snnprune analyze quantize net.safetensors --bits 8,4",),
    "analyze lowrank": ("snnprune analyze lowrank net.safetensors --keep 0.5",),
    "analyze prune": ("snnprune analyze prune net.safetensors --sparsity 0.5,0.9",),
    "analyze noise": ("snnprune analyze noise net.safetensors --level 0.1,0.2",),
    "recipes ls": ("snnprune recipes ls",),
    "recipes show": ("snnprune recipes show cifar10",),
    "recipes cp": ("snnprune recipes cp cifar10 mine.yaml",),
    "recipes validate": ("snnprune recipes validate mine.yaml",),
    "demo": ("snnprune demo", "snnprune demo --out elsewhere --force"),
    "env": ("snnprune env", "snnprune env --json"),
}
"""By the words of the command."""


def format_epilog(command: str) -> str | None:
    """The examples of a command, as they stand at the end of its help."""
    shown = EXAMPLES.get(command)
    if shown is None:
        return None
    return "\n".join(["Examples:" if len(shown) > 1 else "Example:", *shown])
