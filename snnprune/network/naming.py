"""What functions of torch are called."""

from collections.abc import Callable
from typing import Any

SYNONYMS = {
    "__iadd__": "add",
    "__radd__": "add",
    "__isub__": "sub",
    "__rsub__": "rsub",
    "subtract": "sub",
    "__imul__": "mul",
    "__rmul__": "mul",
    "multiply": "mul",
    "__itruediv__": "div",
    "__truediv__": "div",
    "true_divide": "div",
    "divide": "div",
    "negative": "neg",
    "__and__": "bitwise_and",
    "__iand__": "bitwise_and",
}


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called: `add`, also for `add_`, `+=` and `add.Tensor`; `T` for `x.T`."""
    name = str(getattr(function, "__name__", "?"))
    if name == "__get__":
        name = str(getattr(getattr(function, "__self__", None), "__name__", name))
    name = name.split(".")[0]
    return SYNONYMS.get(name) or (name if name.startswith("_") else name.rstrip("_"))
