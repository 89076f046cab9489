"""Lost or incomplete responses of sbatch and squeue: no job is forgotten, and no cell is submitted twice."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import pai_bench
from tests.cluster.cluster import DEV, SLURM, Cluster, Sweep, wait_for

if not SLURM:
    pytest.skip("slurmctld is not installed: apt-get install slurm-wlm munge", allow_module_level=True)

pytestmark = pytest.mark.slow_cluster

Reference = dict[str, dict[str, Any]]
SAYS_LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def lying(folder: Path, name: str, text: str) -> dict[str, str]:
    """Return an environment in which a SLURM command is replaced by a script."""
    place = folder / f"lying-{name}" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/bash\n{text}\n")
    place.chmod(0o755)
    return {"PATH": f"{place.parent}:{os.environ['PATH']}"}


def events(sweep: Sweep) -> list[str]:
    """Return the events in the ledgers, oldest sweep first."""
    ledgers = sorted((sweep.root / "state" / "sweeps").glob("*/ledger.jsonl"))
    return [json.loads(line)["event"] for place in ledgers for line in place.read_text().split("\n") if line]


def known(cluster: Cluster, sweep: Sweep) -> dict[str, str]:
    """Return the state by task of the sweep's jobs that squeue shows, including ended ones."""
    lines = cluster.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%j").splitlines()
    tags = [f":{place.name}:" for place in (sweep.root / "state" / "sweeps").iterdir()]
    fields = [line.split("|") for line in lines if any(tag in line for tag in tags)]
    return {job: state for job, state, _ in fields}


def age(sweep: Sweep) -> None:
    """Date all submissions in the ledgers back to 2020."""
    for place in (sweep.root / "state" / "sweeps").glob("*/ledger.jsonl"):
        place.write_text(re.sub(r'"at":"\d+', '"at":"2020', place.read_text()))


def test_a_job_whose_reply_was_lost_is_adopted(
    cluster: Cluster, folder: Path, cells: tuple[str, ...], reference: Reference
) -> None:
    taken = f'{shutil.which("sbatch")} "$@" >/dev/null'
    timed_out = lying(folder, "sbatch", f"{taken}; echo '{SAYS_LOST}' >&2; exit 1")
    sweep = Sweep(cluster, folder, *cells, "--cells-per-job", "1")
    cluster.nodes("drain")
    try:
        said = sweep.type(env=timed_out)
        assert "submitted sweep" in said and "did not accept" not in said
        assert len(known(cluster, sweep)) == 3 and events(sweep) == ["submitting", "submitted"]
        assert "3 queued, 0 to submit" in sweep.type(env=timed_out)
        # Cancel the jobs, date them back, and submit again with an sbatch without output and an squeue without rows.
        assert pai_bench(folder, "cancel", "--yes", env=cluster.env).returncode == 0
        age(sweep)
        silent = lying(folder, "sbatch", taken)["PATH"]
        blind = lying(folder, "squeue", "exit 0")["PATH"]
        said = sweep.type(env={"PATH": f"{silent.partition(':')[0]}:{blind}"}, code=1)
        assert "it is unknown if SLURM accepted 3 tasks" in said
        assert events(sweep)[-2:] == ["submitting", "unanswered"]
        assert "3 unknown, 0 to submit" in sweep.type(env={"PATH": blind})
        assert "3 queued, 0 to submit" in sweep.type() and events(sweep)[-1] == "adopted"
        shown = json.loads(pai_bench(folder, "status", "--json", env=cluster.env).stdout)
        assert shown["counts"]["queued"] == 3
    finally:
        cluster.nodes("resume")
    sweep.complete(reference)
    assert not sweep.duplicates() and "Traceback" not in sweep.output()
    assert "FAILED" not in known(cluster, sweep).values()


def test_jobs_survive_an_squeue_without_rows(cluster: Cluster, folder: Path, slow: tuple[str, ...]) -> None:
    blind = lying(folder, "squeue", "exit 0")
    sweep = Sweep(cluster, folder, *slow)
    cluster.nodes("drain")
    try:
        sweep.type()
        assert "0 to submit" in sweep.type(env=blind), "submitted within the grace period"
        # Old tasks without a claim count as ended, until squeue shows them again.
        age(sweep)
        assert "3 to submit" in sweep.type(env=blind) and "closed" in events(sweep)
        assert "3 queued, 0 to submit" in sweep.type() and "reopened" in events(sweep)
        living = [job for job, state in known(cluster, sweep).items() if state == "PENDING"]
        assert len(living) == 6
        done = pai_bench(folder, "cancel", "--yes", env=cluster.env)
        assert done.returncode == 0 and done.stderr.count("cancelled 3 tasks") == 2, done.stderr
        wait_for(lambda: not cluster.ask("squeue", "-h"), "an empty queue")
    finally:
        cluster.nodes("resume")
    # Running tasks count as in flight because of their live claims, regardless of the time of submission.
    sweep.type(env={"PAI_TEST_NAP": "3"})
    sweep.training(3)
    age(sweep)
    assert "3 running, 0 to submit" in sweep.type(env=blind)
    assert pai_bench(folder, "cancel", "--yes", env=cluster.env).returncode == 0
    wait_for(lambda: not cluster.ask("squeue", "-h"), "an empty queue")


def test_a_job_is_adopted_when_the_controller_freezes_during_its_submission(
    cluster: Cluster, folder: Path, cells: tuple[str, ...], reference: Reference
) -> None:
    """sbatch gives up after ten seconds, and the job enters the queue when the controller resumes."""
    real = shutil.which("sbatch")
    frozen = lying(folder, "sbatch", f'{DEV}/daemon {cluster.folder} stop slurmctld >/dev/null; exec {real} "$@"')
    sweep = Sweep(cluster, folder, *cells)
    try:
        said = sweep.type(env=frozen, code=1)
        assert "it is unknown if SLURM accepted" in said and "timed out" in said
        assert events(sweep) == ["submitting", "unanswered"]
    finally:
        cluster.daemon("cont", "slurmctld")
    n_tasks = len(wait_for(lambda: known(cluster, sweep), "the job"))
    assert "0 to submit" in sweep.type() and events(sweep)[2] == "adopted"
    sweep.complete(reference)
    assert len(known(cluster, sweep)) == n_tasks and not sweep.duplicates()
