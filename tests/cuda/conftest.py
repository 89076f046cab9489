"""Preparation for the stub of the CUDA libraries (PAI_TEST_STUB=1), on which the control flow of the tests runs."""

from __future__ import annotations

import os

import pytest

STUB = bool(os.environ.get("PAI_TEST_STUB"))

if STUB:
    from tests.cuda_stub import rehearsal as _  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests that compare numbers computed by kernels."""
    config.addinivalue_line("markers", "kernels: compares numbers that only a device with kernels computes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out comparisons of numbers on the stub, whose kernels compute nothing."""
    for item in items:
        if STUB and item.get_closest_marker("kernels"):
            item.add_marker(pytest.mark.skip(reason="kernels of the stub compute nothing"))
