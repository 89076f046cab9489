"""Amount of training work in a recipe, and the key that identifies cells of equal speed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BACKWARD = 3
"""Cost of a forward and backward pass of an image, in forward passes."""

_SPEED = (
    *(("train", key, default) for key, default in (("batch_size", None), ("precision", "float32"))),
    *(("train", key, False) for key in ("channels_last", "cuda_graph", "compile")),
    ("data", "crop", "pad"),
)
"""Recipe values that determine the time per image: table, key, and the value of results that lack the key."""


def speed_key(values: Mapping[str, Mapping[str, Any]]) -> tuple[Any, ...]:
    """Return the key shared by cells of one data set, model and device that take the same time per image.

    `values` are the values of a recipe by table and key; results of earlier versions may lack keys.
    """
    key = tuple(values.get(table, {}).get(key, default) for table, key, default in _SPEED)
    return tuple(False if value == "auto" else value for value in key)


def trained_images(values: Mapping[str, Mapping[str, Any]], n_train: int) -> float:
    """Return the images per epoch of `n_train` training images: the fraction in use without the validation split."""
    data = values.get("data", {})
    held_out = data.get("validation_size", 0.0) if data.get("split") == "validation" else 0.0
    return float(n_train * min(data.get("train_fraction", 1.0), 1 - held_out))


def trained_steps(values: Mapping[str, Mapping[str, Any]], n_train: int) -> float:
    """Return the number of training steps, where a short last batch of an epoch counts as a part of a step."""
    train = values["train"]
    return float(train.get("steps", 0) or trained_images(values, n_train) / train["batch_size"] * train["epochs"])


def forward_passes(values: Mapping[str, Mapping[str, Any]], n_train: int, n_test: int) -> float:
    """Return the cost of training and evaluation in forward passes of one image; a training step counts BACKWARD."""
    data, train = values.get("data", {}), values["train"]
    images = train["batch_size"] * trained_steps(values, n_train)
    # The small difference keeps a rounding error from adding an epoch.
    epochs = math.ceil(images / trained_images(values, n_train) - 1e-9)
    evaluations = -(-epochs // train.get("evaluate_every", 1))
    evaluated = n_train * data.get("validation_size", 0.0) if data.get("split") == "validation" else n_test
    return float(BACKWARD * images + evaluations * evaluated)
