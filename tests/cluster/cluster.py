"""Helpers for tests on the development cluster: the cluster, a sweep on it, and the assertions after each fault."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.cli import program
from tests.cli.program import PAI_BENCH, environment, pai_bench

DEV = Path(__file__).resolve().parents[2] / "slurm" / "dev"
SLURM = shutil.which("slurmctld", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None
SAME = ("accuracy", "curve", "init_hash", "mask_hash", "status")


wait_for = partial(program.wait_for, every=0.2)  # most conditions ask SLURM


@dataclass(frozen=True)
class Cluster:
    """Cluster started by `slurm/dev/up`."""

    folder: Path

    @classmethod
    def up(cls, folder: Path, **settings: str) -> Cluster:
        done = subprocess.run([DEV / "up", folder], env={**os.environ, **settings}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return cls(folder)

    def down(self) -> None:
        subprocess.run([DEV / "down", self.folder], check=True, capture_output=True)

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def daemon(self, action: str, name: str) -> str:
        done = subprocess.run(
            [DEV / "daemon", self.folder, action, name], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    def tasks(self) -> dict[str, str]:
        """Return the state by task of all jobs that squeue shows, including ended ones."""
        return dict(line.split("|") for line in self.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T").splitlines())

    def running(self) -> list[str]:
        return [job for job, state in self.tasks().items() if state == "RUNNING"]

    def nodes(self, state: str) -> None:
        """Set the state of all nodes with `scontrol update` (drain or resume)."""
        names = set(self.ask("sinfo", "-h", "-N", "-o", "%N").split())
        self.ask("scontrol", "update", f"nodename={','.join(sorted(names))}", f"state={state}", "reason=test")

    def idle(self) -> None:
        """Wait until the queue is empty and every node is idle; resume nodes that a fault has drained."""
        wait_for(lambda: not self.ask("squeue", "-h"), "an empty queue")

        wait_for(lambda: set(self.resume().values()) == {"idle"}, "idle nodes")

    def resume(self) -> dict[str, str]:
        """Resume the nodes that are drained or down; return the state of each node before.

        On a busy machine a fault can drain a node: a job that is killed ends later than slurmd waits for it.
        """
        listed = self.ask("sinfo", "-h", "-N", "-o", "%N %t", check=False)
        states = dict(line.split() for line in listed.splitlines())
        for node, state in states.items():
            if state.startswith(("drain", "down")):
                self.ask("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return states


class Sweep:
    """One sweep command, run repeatedly in its own folder."""

    def __init__(self, cluster: Cluster, folder: Path, *arguments: str, every: float = 1.0) -> None:
        self.cluster = cluster
        self.folder = folder
        self.arguments = ("sweep", "--where", "slurm", "--profile", "cpu", "--slurm", "mem=3G", *arguments)
        self.env = {
            **environment(folder),
            **cluster.env,
            "PAI_BENCH_CHECKPOINT_EVERY": str(every),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def root(self) -> Path:
        return self.folder / "results"

    def start(self, *more: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PAI_BENCH, *self.arguments, *more],
            cwd=self.folder,
            env={**self.env, **options.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def type(self, *more: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        """Run the command to its end; returns its stderr."""
        done = pai_bench(self.folder, *self.arguments, *more, env={**self.env, **(env or {})})
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stderr

    def results(self) -> dict[str, dict[str, Any]]:
        return program.results(self.root)

    def checkpoints(self) -> list[Path]:
        return list((self.root / "state" / "checkpoints").rglob("*.checkpoint"))

    def training(self, least: int = 1) -> None:
        """Wait until at least `least` cells have written a checkpoint."""
        wait_for(lambda: len({path.parent for path in self.checkpoints()}) >= least, f"checkpoints of {least} cells")

    def duplicates(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.root / "state" / "duplicates").rglob("*.json")]

    def output(self) -> str:
        """Return the output of all tasks."""
        return "\n".join(path.read_text() for path in sorted((self.root / "state" / "sweeps").rglob("*_log.err")))

    def complete(self, reference: dict[str, dict[str, Any]], doubled: int = 0) -> None:
        """Assert that the same command completes the sweep, with results equal to the reference without faults."""
        self.type("--wait")
        found = self.results()
        assert found.keys() == reference.keys()
        for name, result in found.items():
            assert {key: result[key] for key in SAME} == {key: reference[name][key] for key in SAME}, name
        assert all(note["equal"] for note in self.duplicates())
        assert len(self.duplicates()) <= doubled
        assert f"= {len(found)} done, 0 to submit" in self.type()


def undisturbed(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the results of a sweep run in one process, without a cluster."""
    done = pai_bench(folder, "sweep", "--where", "debug", *arguments)
    assert done.returncode == 0, done.stderr
    return program.results(folder / "results")
