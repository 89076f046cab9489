"""How much a cell trains by its recipe, and which cells run at the same speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BACKWARD = 3
"""Forward and backward pass of an image, in forward passes."""

_SPEED = (
    *(("train", key, default) for key, default in (("batch_size", None), ("precision", "float32"))),
    *(("train", key, False) for key in ("channels_last", "cuda_graph")),
    ("data", "crop", "pad"),
)
"""Values of a recipe that decide how long an image takes: table, key, and the value in results that lack the key."""


def speed_key(values: Mapping[str, Mapping[str, Any]]) -> tuple[Any, ...]:
    """What cells of one data set, model and device must share for the time of one to tell the time of another.

    `values` are a recipe's by table and key; those of results made by an earlier version may lack keys.
    """
    return tuple(values.get(table, {}).get(key, default) for table, key, default in _SPEED)


def trained_images(values: Mapping[str, Mapping[str, Any]], n_train: int) -> float:
    """Images of one epoch out of the training set's `n_train`: the fraction in use, without the validation part."""
    data = values.get("data", {})
    held_out = data.get("validation_size", 0.0) if data.get("split") == "validation" else 0.0
    return float(n_train * min(data.get("train_fraction", 1.0), 1 - held_out))


def forward_passes(values: Mapping[str, Mapping[str, Any]], n_train: int, n_test: int) -> float:
    """Forward passes of one image that training takes, a training step counted as BACKWARD, evaluations included."""
    data, train = values.get("data", {}), values["train"]
    epochs = train["epochs"]
    evaluations = -(-epochs // train.get("evaluate_every", 1))
    evaluated = n_train * data.get("validation_size", 0.0) if data.get("split") == "validation" else n_test
    return float(BACKWARD * epochs * trained_images(values, n_train) + evaluations * evaluated)
