"""The files that a checkpoint can be: for each kind a package, told apart by content."""
