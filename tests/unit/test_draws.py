"""The same random draws whatever the type that a method computes in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import pai_bench
from pai_bench.core.dispatch import DispatchMode
from pai_bench.scoring import registry

from .nets import batches, flat, tiny

SHORT = {"rounds": 3, "repeats": 2, "probes": 2}
"""Hyper-parameters that make a method short, where it has them."""


class Drawn(DispatchMode):
    """Notes the results of all operations that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.values += [leaf.detach().double().clone() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return result


@pytest.mark.slow
@pytest.mark.parametrize("method", pai_bench.list_methods())
def test_float32_and_float64_scoring_use_the_same_draws(method: str) -> None:
    model, data = tiny(dropout=0.3), batches(8)
    short = {key: value for key, value in SHORT.items() if key in registry.hyperparameters(registry.get(method))}
    short |= {"steps": 3} if method == "dpai" else {}
    found = {}
    for dtype in ("float64", "float32"):
        with Drawn() as drawn:
            masks = pai_bench.prune(model, data, method, sparsity=0.7, dtype=dtype, **short)
        found[dtype] = drawn.values, flat(masks)
    (exact, wanted), (rounded, got) = found["float64"], found["float32"]
    assert len(exact) == len(rounded)
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(exact, rounded, strict=True))
    assert (wanted & got).sum() >= 0.97 * (wanted | got).sum()
