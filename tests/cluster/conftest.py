"""Fixtures: one development cluster per test process, in a folder with a short path (its sockets limit the length)."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import recipe
from tests.cluster.cluster import SLURM, Cluster, undisturbed

# Without SLURM, collect a single file, so that the reason for the skip is printed once.
collect_ignore = [] if SLURM else sorted(path.name for path in Path(__file__).parent.glob("test_*.py"))[1:]

CELLS = ("--methods", "rigl:every=20,snip", "--sparsities", "0.9", "--seeds", "0")
"""Arguments for three cells: rigl, whose masks change, snip and the dense reference."""

NAP = """
import os, time
from pai_bench.training.checkpoints import Checkpoints

due = Checkpoints.due

def slowly(self):
    time.sleep(float(os.environ.get("PAI_TEST_NAP", "0.12")))
    return due(self)

Checkpoints.due = slowly
"""
"""Source of a plug-in that adds a pause to each training step."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="pai-", dir="/tmp"))
    try:
        # One cluster starts at a time, because each looks for free ports and binds to them later.
        with (tmp_path_factory.getbasetemp().parent / "cluster.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Short timeouts, so that a fault and the recovery fit into a test; at most four tasks in an array.
            started = Cluster.up(folder, KILL_WAIT="4", GRACE="20", SLURMD_TIMEOUT="15", MAX_ARRAY="4")
        yield started
    finally:
        Cluster(folder).down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the arguments of a sweep of three cells."""
    return (*CELLS, "--recipe", recipe(tmp_path_factory.mktemp("recipe"), 8))


@pytest.fixture(scope="session")
def slow(cells: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the same arguments with cells that train for half a minute each, so that a fault can hit them midway."""
    plugin = tmp_path_factory.mktemp("nap") / "nap.py"
    plugin.write_text(NAP)
    return (*cells, "--plugin", str(plugin), "--cells-per-job", "1")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, cells: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the results of the same cells, run without faults."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), *cells)


@pytest.fixture
def folder(tmp_path: Path, cluster: Cluster) -> Iterator[Path]:
    """Yield a folder for one sweep; cancel its jobs before the next test."""
    yield tmp_path
    cluster.ask("scancel", "--quiet", "--user=" + cluster.ask("id", "-un"), check=False)
    cluster.idle()
