"""Checks of the scores that a method returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError

DTYPES = {"float64": torch.float64, "float32": torch.float32}


def checked_dtype(dtype: object) -> torch.dtype:
    """The type to score in, by its name.

    Raises: PaiBenchError for another type.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise PaiBenchError(
            f"scoring dtype {name!r} is not supported", f"known: {', '.join(DTYPES)}; half precision changes masks"
        )
    return DTYPES[name]


def checked_scores(
    method: str,
    scores: Any,
    weights: Mapping[str, Tensor],
    reason: Callable[[], tuple[str, str] | None] = lambda: None,
) -> dict[str, Tensor]:
    """Return the scores in the order of the weights, detached; `reason` gives cause and remedy if they are not finite.

    Raises: PaiBenchError when a weight has no score, or one of another shape, or not finite.
    """
    remedy = f"correct the method: {method} must return one finite score per prunable weight, by parameter name"
    if not isinstance(scores, Mapping):
        raise PaiBenchError(f"method {method} returned {type(scores).__name__}, not a dict of scores", remedy)
    missing = [key for key in weights if key not in scores]
    extra = [str(key) for key in scores if key not in weights]
    if missing or extra:
        what = f"no scores for {', '.join(missing)}" if missing else f"scores for unknown weights {', '.join(extra)}"
        raise PaiBenchError(f"method {method} returned {what}", remedy)
    for key, weight in weights.items():
        score = scores[key]
        if not isinstance(score, Tensor) or score.shape != weight.shape:
            shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise PaiBenchError(
                f"method {method} returned {shape} for {key}, whose shape is {list(weight.shape)}", remedy
            )
    # A sum that is finite has finite parts (one that is not may be too large, hence the second look); one look for all
    # layers is one wait for the device.
    if not bool(torch.isfinite(torch.stack([scores[key].sum() for key in weights])).all()):
        for key in weights:
            if count := int((~torch.isfinite(scores[key])).sum()):
                cause = f"method {method} returned {count} scores for {key} that are not finite"
                why, cure = reason() or ("", remedy)
                raise PaiBenchError(f"{cause}: {why}" if why else cause, cure)
    return {key: scores[key].detach() for key in weights}
