"""One development cluster for all tests, in a folder with a short path, and gone in the end whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import recipe
from tests.cluster.cluster import SLURM, Cluster, undisturbed

# Without SLURM one file says so, in one line.
collect_ignore = [] if SLURM else sorted(path.name for path in Path(__file__).parent.glob("test_*.py"))[1:]

CELLS = ("--methods", "random,snip", "--sparsities", "0.9", "--seeds", "0")
"""Three cells: the dense reference is one."""

NAP = """
import os, time
from pai_bench.checkpoints import Checkpoints

due = Checkpoints.due

def slowly(self):
    time.sleep(float(os.environ.get("PAI_TEST_NAP", "0.12")))
    return due(self)

Checkpoints.due = slowly
"""
"""A plug-in that lets each training step last, but not work, longer."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="pai-", dir="/tmp"))
    try:
        # Short patience, so that a fault and its end fit into a test; an array holds four tasks at most.
        yield Cluster.up(folder, KILL_WAIT="4", GRACE="20", SLURMD_TIMEOUT="15", MAX_ARRAY="4")
    finally:
        Cluster(folder).down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The arguments of a sweep of three cells."""
    return (*CELLS, "--recipe", recipe(tmp_path_factory.mktemp("recipe"), 8))


@pytest.fixture(scope="session")
def slow(cells: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The same cells, lasting half a minute each, so that they can be caught at it."""
    plugin = tmp_path_factory.mktemp("nap") / "nap.py"
    plugin.write_text(NAP)
    return (*cells, "--plugin", str(plugin), "--cells-per-job", "1")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, cells: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Their results, undisturbed."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), *cells)


@pytest.fixture
def folder(tmp_path: Path, cluster: Cluster) -> Iterator[Path]:
    """A folder for one sweep, whose jobs are gone when the next test begins."""
    yield tmp_path
    cluster.ask("scancel", "--quiet", "--user=" + cluster.ask("id", "-un"), check=False)
    cluster.idle()
