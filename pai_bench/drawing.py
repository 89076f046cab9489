"""Weights drawn anew."""

from __future__ import annotations

from torch import nn


def reset_parameters(model: nn.Module) -> None:
    """Draw the parameters of every module anew as the module itself does, from the global random stream.

    Torch's attention and transformers call what does so by a private name. A module that has no such method keeps its
    parameters.
    """
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()
