"""`status`, `logs`, `cancel` and `doctor` during a sweep on the development cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import MOODY, pai_bench, recipe
from tests.cluster.cluster import SLURM, Cluster, Sweep, wait_for

if not SLURM:
    pytest.skip("slurmctld is not installed: apt-get install slurm-wlm munge", allow_module_level=True)

pytestmark = pytest.mark.slow_cluster


def test_status_logs_and_cancel_show_and_end_a_sweep(cluster: Cluster, folder: Path) -> None:
    """Run three cells one at a time: the first succeeds, the second fails, the third is held and cancelled."""
    (folder / "moody.py").write_text(MOODY.replace("HOW", "raise RuntimeError('not in the mood')"))
    cells = ("--methods", "moody,random", "--sparsities", "0.9", "--seeds", "0", "--recipe", recipe(folder, 150))
    sweep = Sweep(cluster, folder, *cells, "--plugin", "moody.py", "--slurm", "parallelism=1", every=60)

    def status() -> dict[str, Any]:
        shown = pai_bench(folder, "status", "--json", env=cluster.env)
        assert shown.returncode == 0, shown.stderr
        found: dict[str, Any] = json.loads(shown.stdout)
        return found

    sweep.type("--cells-per-job", "1")
    seen = wait_for(
        lambda: (s := status())["running"] and s["running"][0]["seconds_left"] is not None and s, "an epoch"
    )
    assert seen["counts"] | {"done": 0, "running": 1, "queued": 2} == seen["counts"]
    (running,) = seen["running"]
    assert running["cell"]["method"] == "dense" and running["epochs"] == 150 and " on n" in running["where"]
    assert seen["seconds_left"] > running["seconds_left"]
    (waiting,) = seen["waiting"]
    assert waiting["n_tasks"] == 2 and waiting["remedy"] is None and "requested number of tasks" in waiting["words"]

    (held,) = (job for job, state in cluster.tasks().items() if job.endswith("_2") and state == "PENDING")
    cluster.ask("scontrol", "uhold", held)
    stuck = status()["waiting"][0]
    assert stuck["words"] == "held by its user" and f"scontrol release {held}" in stuck["remedy"]

    cluster.daemon("kill", "slurmctld")
    try:
        blind = pai_bench(folder, "status", env=cluster.env)
        assert blind.returncode == 0 and "2 unknown" in blind.stdout and "is unknown, not lost" in blind.stdout
        assert pai_bench(folder, "cancel", "--yes", env=cluster.env).returncode == 1
    finally:
        cluster.daemon("start", "slurmctld")

    wait_for(lambda: status()["counts"]["failed"], "the failure", seconds=900)
    shown = pai_bench(folder, "status", env=cluster.env).stdout
    assert "1 x RuntimeError: not in the mood" in shown and "pai-bench logs moody/digits/conv8/0.9/0" in shown
    logs = pai_bench(folder, "logs", "--failed", env=cluster.env)
    assert "==> moody/digits/conv8/0.9/0" in logs.stdout and "moody.py" in logs.stdout
    assert "pai-bench: task 1 of chunk" in logs.stdout  # the output of the job

    asked = pai_bench(folder, "cancel", env=cluster.env)
    assert asked.returncode == 2 and "this would cancel 1 SLURM tasks" in asked.stderr
    done = pai_bench(folder, "cancel", "--yes", env=cluster.env)
    assert done.returncode == 0 and "cancelled 1 tasks of 1 cells" in done.stderr, done.stderr
    cluster.idle()
    end = status()
    assert end["counts"] | {"done": 1, "failed": 1, "missing": 1} == end["counts"] and not end["waiting"]


def test_doctor_submits_a_job_and_reports_its_findings(cluster: Cluster, folder: Path) -> None:
    profiles = folder / "config" / "pai-bench" / "slurm"
    profiles.mkdir(parents=True)
    (profiles / "mine.toml").write_text('partition = "main"\nmem = "3G"\n')
    (profiles / "wrong.toml").write_text('partition = "gone"\n')
    well = pai_bench(folder, "doctor", "--job", "--profile", "mine", "--json", env=cluster.env)
    checks = {check["name"]: check for check in json.loads(well.stdout)["checks"]}
    assert well.returncode == 0, well.stdout
    assert "paibench" in checks["SLURM"]["found"] and "scavenge" in checks["partitions"]["found"]
    assert checks["job"]["found"].startswith("ran on n") and "as on this host" in checks["job: sources"]["found"]
    assert not list((folder / "results" / "state" / "sweeps").glob("*"))
    wrong = pai_bench(folder, "doctor", "--profile", "wrong", env=cluster.env)
    assert wrong.returncode == 1 and "wrong: sbatch refuses it" in wrong.stdout and "partition" in wrong.stdout
