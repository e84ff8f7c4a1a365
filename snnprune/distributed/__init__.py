"""Several processes that work on one thing: started by torchrun, each on a device of its own."""
