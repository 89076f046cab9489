"""The index of built-in models agrees with the networks: `python -m tests.unit.test_model_index` writes it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pai_bench import models
from pai_bench.core import model_index


def kind(network: nn.Module) -> str:
    """The type of a network by its layers."""
    layers = list(network.modules())
    if any(isinstance(layer, nn.RNNBase) for layer in layers):
        return "recurrent"
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        return "MLP"
    if any(layer.groups > 1 for layer in convolutions):
        return "depthwise"
    return "residual" if type(network).__name__ in ("ResNet", "WideResNet") else "convolutional"


def written() -> str:
    index = {}
    for name in models.names():
        if models.is_builtin(name):
            description, parameters = models.describe(name)
            with torch.device("meta"):
                network = models.build(name, 3, 224 if "imagenet" in name else 32, 10)
            index[name] = {
                "kind": kind(network),
                "parameters": parameters,
                "description": description,
            }
    return json.dumps(index, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.slow
def test_the_index_equals_the_networks() -> None:
    remedy = "models have changed: run `python -m tests.unit.test_model_index` and commit what it writes"
    assert model_index.FILE.read_text(encoding="utf-8") == written(), remedy


if __name__ == "__main__":
    model_index.FILE.write_text(written(), encoding="utf-8")
