"""`python -m snnprune` is `snnprune`."""

from snnprune.cli import main

if __name__ == "__main__":
    main()
