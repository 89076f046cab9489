"""End-to-end test of a sweep on the development cluster; the short set that `make test` runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.program import recipe
from tests.cluster.cluster import SLURM, Cluster, Sweep, undisturbed

if not SLURM:
    pytest.skip("slurmctld is not installed: apt-get install slurm-wlm munge", allow_module_level=True)

EARLIER = Path(__file__).parent / "earlier"
"""`state/sweeps` of version 0.1 (commit c1893d0) after `pai-bench sweep --methods dense --datasets digits --seeds 0
--set train.epochs=2 --profile cpu` while no node was free. Its job had the id RECORDED_JOB; PYTHON is its interpreter.
"""
RECORDED_JOB = "29020860"
RECORDED_FOLDER = "/tmp/recorded" + "-" * 147
CELLS = ("--methods", "random,snip", "--sparsities", "0.9", "--seeds", "0-1")


def test_a_sweep_submits_canary_and_chunks_once_and_completes(cluster: Cluster, folder: Path) -> None:
    """Submit six cells as a canary and arrays of at most two tasks; an immediate second command submits nothing."""
    arguments = (*CELLS, "--recipe", recipe(folder))
    sweep = Sweep(cluster, folder, *arguments, "--cells-per-job", "2", "--pack", "2", "--slurm", "max_array=2")
    # Drain the nodes, so that no job has ended when the command is repeated.
    cluster.nodes("drain")
    said = sweep.type("--canary")
    assert "6 to submit" in said and "pai-bench status" in said
    ledgers = list((sweep.root / "state" / "sweeps").glob("*/ledger.jsonl"))
    events = [json.loads(line) for line in ledgers[0].read_text().splitlines() if line]
    assert [event["event"] for event in events] == ["submitting", "submitted"] * 3
    assert sorted(event["n_cells"] for event in events if event["event"] == "submitting") == [1, 1, 4]
    assert "6 queued, 0 to submit" in sweep.type()
    cluster.nodes("resume")
    assert "0 to submit" in sweep.type("--wait")
    expected = undisturbed(folder / "..", *arguments)
    sweep.complete(expected)
    assert not sweep.duplicates() and len(list(ledgers)) == 1
    # Once all jobs have left the queue (late on a busy machine), the sweep is closed and not queried again.
    cluster.idle()
    sweep.type()
    assert '"closed"' in ledgers[0].read_text()


@pytest.mark.slow_cluster
def test_a_job_refuses_changed_code_and_the_next_sweep_submits_it_again(cluster: Cluster, folder: Path) -> None:
    cells = ("--methods", "dense", "--seeds", "0", "--recipe", recipe(folder))
    sweep = Sweep(cluster, folder, *cells)
    cluster.nodes("drain")  # the job does not begin before its specification is changed
    sweep.type()
    (spec,) = (sweep.root / "state" / "sweeps").glob("*/c001.json")
    spec.write_text(spec.read_text().replace('"code":{"pai-bench":"', '"code":{"pai-bench":"0'))
    cluster.nodes("resume")
    cluster.idle()
    assert "has changed since the sweep was planned" in sweep.output() and not sweep.results()
    assert "1 to submit" in sweep.type("--wait") and len(sweep.results()) == 1


@pytest.mark.slow_cluster
def test_a_job_queued_by_version_0_1_refuses_to_run_and_the_next_sweep_submits_its_cell(
    cluster: Cluster, folder: Path
) -> None:
    cell = ("--methods", "dense", "--datasets", "digits", "--seeds", "0", "--set", "train.epochs=2")
    sweep = Sweep(cluster, folder, *cell)
    # A pickle stores the length of the path, so the path of this folder is padded to it.
    padded = str(folder).ljust(len(RECORDED_FOLDER), "/")
    assert len(padded) == len(RECORDED_FOLDER)
    for path in EARLIER.rglob("*.*"):
        copy = sweep.root / "state" / path.relative_to(EARLIER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes().replace(RECORDED_FOLDER.encode(), padded.encode()))
    (script,) = sweep.root.rglob("submission.sh")
    script.write_text(script.read_text().replace("PYTHON", sys.executable))
    cluster.nodes("drain")
    job = cluster.ask("sbatch", "--parsable", str(script))
    (ledger,) = sweep.root.rglob("ledger.jsonl")
    ledger.write_text(ledger.read_text().replace(RECORDED_JOB, job))
    assert "1 queued, 0 to submit" in sweep.type()
    cluster.nodes("resume")
    cluster.idle()
    assert "the code of pai-bench has changed since the sweep was planned" in sweep.output() and not sweep.results()
    assert "1 to submit" in sweep.type("--wait") and len(sweep.results()) == 1
