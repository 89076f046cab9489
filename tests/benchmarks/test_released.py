"""ProsPr as released, run from its authors' checkout beside ours; collected with --released PATH."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pai_bench
from tests.benchmarks.conftest import Compare
from tests.benchmarks.test_scoring import problem


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_against_the_released_prospr(
    compare: Compare, request: pytest.FixtureRequest, measuring: bool, device: torch.device, momentum: float
) -> None:
    """The same network, batches and precision; the release moves the full meta-gradient to the CPU."""
    sys.path.insert(0, str(request.config.getoption("--released")))
    released: Any = importlib.import_module("prospr")
    model, data = problem(64 if measuring else 4, 4, device)

    def theirs() -> list[Tensor]:
        with contextlib.redirect_stdout(io.StringIO()):
            scores: list[Tensor] = released.prune(
                model,
                0.98,
                data,
                lambda module: isinstance(module, (nn.Conv2d, nn.Linear)),
                num_steps=3,
                inner_lr=0.1,
                inner_momentum=momentum,
                return_scores=True,
            )
        return scores

    def ours() -> dict[str, Tensor]:
        options = {"lr": 0.1, "momentum": momentum, "detach_first_buffer": True}
        return pai_bench.score(model, data, "prospr", dtype="float32", **options)

    found = torch.cat([score.flatten() for score in compare(ours, theirs, "of the release", rounds=3).values()])
    expected = torch.cat([score.flatten() for score in theirs()])
    assert float((found - expected).norm() / expected.norm()) < 0.1
