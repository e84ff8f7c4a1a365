"""Safetensors files and states, taken apart and put together with something else in them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.safetensors import read, write_safetensors
from snnprune.training.runs.state import HASH, POSITION, hash_state

Tensors = dict[str, Tensor]


def raw(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of any header: bytes as they are, or a value as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a good file, and what follows it."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def written(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of these."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write_safetensors(path, tensors, metadata or {})
        return path.read_bytes()


def contents(data: bytes) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a good file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        found = read(path)
    return dict(found.tensors), dict(found.metadata)


def changed(
    data: bytes,
    tensors: Mapping[str, Tensor | None] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A good file with these tensors and text in it too; None takes a tensor away."""
    held, texts = contents(data)
    kept = {k: t for k, t in {**held, **(tensors or {})}.items() if t is not None}
    return written(kept, {**texts, **(metadata or {})})


def state_with(
    data: bytes,
    position: Any = None,
    tensors: Mapping[str, Tensor | None] | None = None,
) -> bytes:
    """A state whose hash fits: with what a function made of its position, and these tensors."""
    held, texts = contents(data)
    kept = {k: t for k, t in {**held, **(tensors or {})}.items() if t is not None}
    text = texts[POSITION]
    if position is not None:
        text = position if isinstance(position, str) else json.dumps(position)
    return written(kept, {**texts, POSITION: text, HASH: hash_state(text, kept)})


def position_of(data: bytes) -> dict[str, Any]:
    """The position in a state."""
    found: dict[str, Any] = json.loads(contents(data)[1][POSITION])
    return found


def with_value(tree: Any, path: str, value: Any) -> Any:
    """JSON with another value at a dotted path; `...` takes it away."""
    first, _, rest = path.partition(".")
    if rest:
        return {**tree, first: with_value(tree[first], rest, value)}
    if value is ...:
        return {key: inner for key, inner in tree.items() if key != first}
    return {**tree, first: value}


def like(tensor: Tensor, value: float) -> Tensor:
    """A tensor of that shape and type, all `value`."""
    return torch.full_like(tensor, value)
