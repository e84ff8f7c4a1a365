"""What a command works on: a checkpoint, its network and its data, opened and checked."""
