"""Run folders: what a run keeps, so that it can go on after whatever ended it."""
