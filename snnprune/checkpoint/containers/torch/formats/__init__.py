"""The three formats of torch files, each with `opened(file, path) -> Opened`."""
