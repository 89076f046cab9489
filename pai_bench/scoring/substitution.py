"""Forward passes with other tensors in the place of parameters, also of modules and parameters that are shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def call_with(model: nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor) -> Any:
    """Call the model with `tensors` in the place of its parameters and buffers of these names.

    A tensor replaces a tied parameter in all of its layers. `torch.func.functional_call` finds these by name, and a
    module that is registered under several names keeps the replacement after the call. Here each place gets one name.
    """
    places: dict[int, list[str]] = {}
    known: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():  # each module once
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                name = f"{prefix}.{key}" if prefix else key
                places.setdefault(id(tensor), []).append(name)
                known[name] = tensor
    given = {
        place: tensor
        for name, tensor in tensors.items()
        for place in (places[id(known[name])] if name in known else [name])
    }
    return torch.func.functional_call(model, given, (inputs,), tie_weights=False)
