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

# Without SLURM the first file says so, in one line.
collect_ignore = [] if SLURM else [path.name for path in Path(__file__).parent.glob("test_*.py")][1:]

CELLS = ("--methods", "random,snip", "--sparsities", "0.9", "--seeds", "0")
"""Three cells: the dense reference is one."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="pai-", dir="/tmp"))
    try:
        # Short patience, so that a fault and its end fit into a test; an array holds four tasks at most.
        yield Cluster.up(folder, KILL_WAIT="4", GRACE="12", SLURMD_TIMEOUT="15", MAX_ARRAY="4")
    finally:
        Cluster(folder).down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The arguments of a sweep whose cells take long enough to be caught at it."""
    return (*CELLS, "--recipe", recipe(tmp_path_factory.mktemp("recipe"), 30))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, slow: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Its results, undisturbed."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), *slow)


@pytest.fixture
def folder(tmp_path: Path, cluster: Cluster) -> Iterator[Path]:
    """A folder for one sweep, whose jobs are gone when the next test begins."""
    yield tmp_path
    cluster.ask("scancel", "--quiet", "--user=" + cluster.ask("id", "-un"), check=False)
    cluster.idle()
