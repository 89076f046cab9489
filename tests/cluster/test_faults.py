"""Faults during a sweep: the same command completes it, and every result equals that of a run without faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pai_bench.sweep.execution import claims
from tests.cli.program import MOODY, recipe
from tests.cluster.cluster import SLURM, Cluster, Sweep, wait_for

if not SLURM:
    pytest.skip("slurmctld is not installed: apt-get install slurm-wlm munge", allow_module_level=True)

pytestmark = pytest.mark.slow_cluster

CHANGING = "rigl:every=20"
"""Method of a cell whose masks change during training."""

Reference = dict[str, dict[str, Any]]


def owners(sweep: Sweep) -> dict[str, claims.Owner]:
    """Return the owners of live claims, by method."""
    return {held.key.cell.method: held.owner for held in claims.survey(sweep.root) if held.verdict == "alive"}


def resumed(sweep: Sweep) -> list[str]:
    """Return the methods of the cells that were trained in more than one attempt."""
    return sorted(r["method"] for r in sweep.results().values() if r["provenance"]["earlier_attempts"])


def test_killed_cancelled_and_requeued_tasks_resume_from_their_checkpoints(
    cluster: Cluster, folder: Path, slow: tuple[str, ...], reference: Reference
) -> None:
    sweep = Sweep(cluster, folder, *slow)
    sweep.type()
    sweep.training(3)
    jobs = owners(sweep)
    os.kill(jobs[CHANGING].pid, signal.SIGKILL)
    cluster.ask("scancel", str(jobs["snip"].job))
    cluster.ask("scontrol", "requeue", str(jobs["dense"].job))
    wait_for(lambda: cluster.tasks()[str(jobs[CHANGING].job)] == "FAILED", "the death")
    wait_for(lambda: cluster.tasks()[str(jobs["snip"].job)] == "CANCELLED", "the cancellation")
    assert "interrupted" in sweep.output(), "SIGTERM makes the task save its cell"
    assert "2 to submit" in sweep.type("--dry-run"), "requeued tasks are not submitted again"
    sweep.complete(reference)
    assert resumed(sweep) == ["dense", CHANGING, "snip"]


def test_a_sweep_survives_a_node_going_down_and_killed_daemons(
    cluster: Cluster, folder: Path, slow: tuple[str, ...], reference: Reference
) -> None:
    """Set the node of one task down, then kill and restart the slurmd of another task, and slurmctld."""
    sweep = Sweep(cluster, folder, *slow, "--slurm", "options.exclusive=true")
    sweep.type()
    sweep.training(3)
    jobs = owners(sweep)
    down = jobs["dense"].host
    try:
        cluster.ask("scontrol", "update", f"nodename={down}", "state=down", "reason=test")
        wait_for(lambda: cluster.tasks().get(str(jobs["dense"].job)) != "RUNNING", "the end of the task on the node")
        time.sleep(6)  # slurmctld saves its state every five seconds, and loses later changes when killed
        cluster.daemon("kill", f"slurmd-{jobs['snip'].host}")
        cluster.daemon("kill", "slurmctld")
        silent = sweep.type(code=2)
        assert "SLURM does not respond" in silent and "try again later" in silent
        cluster.daemon("start", f"slurmd-{jobs['snip'].host}")
        cluster.daemon("start", "slurmctld")
        wait_for(lambda: cluster.ask("squeue", "-h", check=False) or True, "the controller")
        wait_for(lambda: len(sweep.results()) >= 2, "the results of the other two cells")
    finally:
        cluster.ask("scontrol", "update", f"nodename={down}", "state=resume")

    def all_done() -> bool:
        # After losing its latest state, slurmctld tries to start jobs that are running, fails, and holds them; `sweep`
        # reports these jobs, and this test releases them.
        for job, state in cluster.tasks().items():
            if state == "PENDING":
                cluster.ask("scontrol", "release", job, check=False)
        cluster.resume()
        return len(sweep.results()) == len(reference)

    wait_for(all_done, "all cells", 900)
    sweep.complete(reference, doubled=2)


def test_preemption_saves_requeues_and_resumes(
    cluster: Cluster, folder: Path, slow: tuple[str, ...], reference: Reference
) -> None:
    sweep = Sweep(cluster, folder, *slow, "--slurm", "partition=scavenge")
    sweep.type()
    sweep.training(3)
    cluster.ask("sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    wait_for(lambda: sweep.output().count("stopped by a signal; saved") == 3, "three warnings")
    sweep.complete(reference)
    assert resumed(sweep) == ["dense", CHANGING, "snip"]
    # SLURM requeued all tasks: nothing was submitted a second time.
    assert len(list((sweep.root / "state" / "sweeps").iterdir())) == 1


def test_the_time_limit_saves_requeues_and_resumes(
    cluster: Cluster, folder: Path, slow: tuple[str, ...], reference: Reference
) -> None:
    """Run all cells in one task and shorten its time limit during training; SLURM signals up to 60 s early."""
    sweep = Sweep(cluster, folder, *slow[:-1], "3", "--slurm", "signal_seconds=30")
    sweep.type()
    sweep.training()
    (job,) = cluster.running()
    began = time.monotonic()
    cluster.ask("scontrol", "update", f"jobid={job}", "timelimit=1")
    wait_for(lambda: "stopped by a signal; saved" in sweep.output(), "the warning")
    assert time.monotonic() - began < 90
    cluster.ask("scontrol", "update", f"jobid={job}", "timelimit=60")
    sweep.complete(reference)
    assert len(resumed(sweep)) >= 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_submitter_killed_before_or_after_sbatch_loses_no_job(
    cluster: Cluster, folder: Path, cells: tuple[str, ...], reference: Reference, when: str
) -> None:
    real = shutil.which("sbatch")
    (folder / "bin").mkdir()
    call = f'{real} "$@"\n' if when == "after" else ""
    (folder / "bin" / "sbatch").write_text(f"#!/bin/bash\n{call}kill -9 $PPID\n")
    (folder / "bin" / "sbatch").chmod(0o755)
    sweep = Sweep(cluster, folder, *cells)
    sweep.type(code=-signal.SIGKILL, env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"})
    said = sweep.type("--dry-run")
    assert f"{0 if when == 'after' else 3} to submit" in said
    sweep.complete(reference)
    submitted = [json.loads(path.read_text())["tasks"] for path in (sweep.root / "state").glob("sweeps/*/c*.json")]
    assert len(submitted) == (1 if when == "after" else 2)


def test_a_cell_above_the_memory_limit_fails_after_three_jobs_and_can_be_retried(
    cluster: Cluster, folder: Path
) -> None:
    sweep = Sweep(cluster, folder, "--methods", "dense", "--seeds", "0", "--recipe", recipe(folder))
    for _ in range(3):
        assert "1 to submit" in sweep.type("--slurm", "mem=300M", "--wait", code=1)
    assert "1 failed (use --retry failed), 0 to submit" in sweep.type(code=1)
    (note,) = (json.loads(path.read_text()) for path in (sweep.root / "state" / "failed").rglob("*.json"))
    assert note["kind"] == "oom" and "3 jobs died on it" in note["cause"] and "--slurm mem=" in note["cause"]
    assert "1 to submit" in sweep.type("--retry", "failed", "--wait") and len(sweep.results()) == 1


def test_a_sweep_survives_a_full_disk_and_damaged_checkpoints(
    cluster: Cluster, folder: Path, slow: tuple[str, ...], reference: Reference
) -> None:
    sweep = Sweep(cluster, folder, *slow)
    # With a file size limit of 1 KiB, claims can be written, but not results and checkpoints.
    full = ("--disk-patience", "1", "--slurm", 'setup=["ulimit -f 1"]', "--wait")
    sweep.env["PAI_TEST_NAP"] = "0"
    sweep.type(*full, code=1)
    assert not sweep.results() and not (sweep.root / "state" / "failed").exists()
    assert "unwritten" in sweep.output()
    sweep.env["PAI_TEST_NAP"] = "0.12"
    sweep.type()
    wait_for(lambda: len(sweep.checkpoints()) >= 6, "two checkpoints of each cell")
    cluster.ask("scancel", "--user=" + cluster.ask("id", "-un"))
    cluster.idle()
    newest, cut, all_gone = sorted({path.parent for path in sweep.checkpoints()})
    for path, content in [
        (max(newest.glob("*.checkpoint")), b"nothing"),
        (max(cut.glob("*.checkpoint")), max(cut.glob("*.checkpoint")).read_bytes()[:-100]),
        *((path, b"") for path in all_gone.glob("*.checkpoint")),
    ]:
        path.write_bytes(content)
    sweep.complete(reference)
    assert len(resumed(sweep)) == 2


def test_a_results_folder_read_only_on_one_node_does_not_affect_other_tasks(
    cluster: Cluster, folder: Path, cells: tuple[str, ...], reference: Reference
) -> None:
    """Mount the results folder read-only for one task, as on a node with a faulty mount of the shared disk."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount of one's own, as many containers do not")
    sweep = Sweep(cluster, folder, *cells, "--cells-per-job", "1")
    (folder / "node").write_text(f"""#!/bin/bash
[ "$SLURM_ARRAY_TASK_ID" = 0 ] || exec "$@"
exec unshare -rm bash -c 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"' {sweep.root} "$@"
""")
    (folder / "node").chmod(0o755)
    sweep.type("--slurm", f"container={folder / 'node'}", "--disk-patience", "1", "--wait", code=1)
    assert len(sweep.results()) == 2 and "Read-only file system" in sweep.output()
    assert "1 to submit" in sweep.type("--dry-run")
    sweep.complete(reference)
    assert not sweep.duplicates()


def test_concurrent_sweeps_submit_once_and_the_first_result_of_a_cell_wins(
    cluster: Cluster, folder: Path, cells: tuple[str, ...], reference: Reference
) -> None:
    sweep = Sweep(cluster, folder, *cells)
    both = [sweep.start(), sweep.start()]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("3 to submit" in text for text in said) == [False, True]
    sweep.complete(reference)
    assert not sweep.duplicates()
    # An NFS client may see a result up to a minute late; if the cell runs again meanwhile, the first result counts.
    wait_for(lambda: not cluster.ask("squeue", "-h"), "the end of the tasks, which live on after their results")
    late = sweep.root / next(iter(reference))
    late.rename(folder / "hidden")
    assert "1 to submit" in sweep.type()
    (folder / "hidden").rename(late)
    first = late.read_bytes()
    sweep.complete(reference, doubled=1)
    assert late.read_bytes() == first


def test_a_failed_canary_prevents_the_other_tasks(cluster: Cluster, folder: Path) -> None:
    (folder / "moody.py").write_text(MOODY.replace("HOW", "raise RuntimeError('not in the mood')"))
    cells = ("--methods", "moody", "--sparsities", "0.9,0.95", "--seeds", "0", "--recipe", recipe(folder))
    sweep = Sweep(cluster, folder, *cells, "--plugin", "moody.py", "--filter", "method=moody", "--canary")
    assert "2 to submit" in sweep.type("--wait", code=1)
    assert sorted(cluster.tasks().values())[:1] != ["COMPLETED"] and not sweep.results()
    assert sum("not in the mood" in path.read_text() for path in (sweep.root / "state" / "failed").rglob("*.json")) == 1
    assert "1 failed (use --retry failed), 1 to submit" in sweep.type("--dry-run")
