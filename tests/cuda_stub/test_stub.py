"""Checks of the CUDA host code on the stub of the CUDA libraries, all in one process; see README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda_stub.__main__ import run
from tests.cuda_stub.build import missing


@pytest.mark.slow
def test_cuda_host_code_passes_its_checks_on_the_stub(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(f"the stub of the CUDA libraries cannot be built: {reason}")
    assert run(tmp_path) == 0
