"""Logits in the outputs of a model, in whichever container the model returns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pai_bench.errors import PaiBenchError


def logits(outputs: Any) -> Tensor:
    """Return the logits [B, classes, …] among the outputs of a model.

    The first of these that is there: the outputs themselves, if they are a tensor; their attribute `logits` (Hugging
    Face's outputs; GoogLeNet and Inception with auxiliary classifiers, whose logits are left out); their item
    "logits", of a mapping; the first real tensor [B, classes, …] of a tuple or list.

    Raises: PaiBenchError for outputs without logits, and for logits that are not real numbers.
    """
    found = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if not isinstance(found, Tensor) and isinstance(outputs, Mapping):
        found = outputs.get("logits")
    if not isinstance(found, Tensor) and isinstance(outputs, (tuple, list)):
        tensors = (item for item in outputs if isinstance(item, Tensor))
        found = next((item for item in tensors if item.is_floating_point() and item.ndim >= 2), None)
    if isinstance(found, Tensor) and not found.is_floating_point():
        remedy = "their real part or absolute value" if found.is_complex() else "the logits, not the classes of argmax"
        raise PaiBenchError(f"the model returns {str(found.dtype)[6:]} numbers instead of logits", f"return {remedy}")
    if isinstance(found, Tensor):
        return found
    raise PaiBenchError(
        f"the model returns {_described(outputs)} instead of logits [B, classes]",
        "wrap it in a torch.nn.Module whose forward returns the logits, or an object with an attribute logits",
    )


def _described(outputs: Any) -> str:
    name = type(outputs).__name__
    if outputs is None:
        return "None"
    if isinstance(outputs, Mapping):
        return f"a {name} with the keys {', '.join(map(repr, list(outputs)[:8])) or '(none)'}"
    if isinstance(outputs, (tuple, list)):
        parts = [str(list(o.shape)) if isinstance(o, Tensor) else type(o).__name__ for o in outputs[:8]]
        return f"a {name} of {', '.join(parts) or 'nothing'}"
    return f"an object of type {name}"
