"""Preparation for the stub of the CUDA libraries (PAI_TEST_STUB=1), on which the control flow of the tests runs."""

from __future__ import annotations

import os

import pytest

STUB = bool(os.environ.get("PAI_TEST_STUB"))

if STUB:
    from tests.cuda_stub import rehearsal as _  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests that need no numbers computed by kernels."""
    config.addinivalue_line("markers", "control_flow: runs on the stub too, whose kernels compute nothing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out comparisons of numbers on the stub."""
    for item in items:
        if STUB and "tests/cuda/" in item.path.as_posix() and not item.get_closest_marker("control_flow"):
            item.add_marker(pytest.mark.skip(reason="kernels of the stub compute nothing"))
