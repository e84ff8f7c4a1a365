"""Checkpoints: tensors and text metadata in a file, read without ever running what is in it.

Each container has a file, as `safetensors.py`, or for torch files a package, with
`read(path) -> Contents`; `containers.py` tells by content which one a file is, and reads and writes
whichever it is. What a header alone tells is in `header.py` and `naming.py`, without torch.
"""
