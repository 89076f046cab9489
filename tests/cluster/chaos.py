"""Script that injects random faults into a sweep on the development cluster.

    python -m tests.cluster.chaos [SECONDS [SEED]]

For SECONDS, or until all cells are done, it kills jobs, nodes, daemons and submitters while it repeats the same sweep
command; afterwards it repeats the command until the sweep is complete. It prints the number of faults by kind, and the
numbers of cells that were lost (no result), doubled (run twice; the first result counts), and different from a run
without faults.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from pai_bench.sweep.execution import claims
from tests.cli.program import recipe
from tests.cluster.cluster import SAME, Cluster, Sweep, undisturbed
from tests.cluster.conftest import NAP

CELLS = ("--methods", "random,snip,magnitude", "--sparsities", "0.9", "--seeds", "0-4")


class Chaos:
    """Fault injection: one method per kind of fault; `heal` undoes the persistent ones."""

    def __init__(self, cluster: Cluster, sweep: Sweep, seed: int) -> None:
        self.cluster = cluster
        self.sweep = sweep
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """Inject one random fault."""
        faults = [self.process, self.process, self.cancelled, self.requeued, self.preempted, self.warned]
        faults += [self.node_down, self.node_crashed, self.slurmd, self.slurmctld, self.submitter, self.checkpoint]
        fault = self.random.choice(faults)
        if fault():
            self.done[fault.__name__] += 1

    def heal(self) -> None:
        """Restart stopped daemons, resume nodes, and release held jobs."""
        for name in ("slurmctld", "slurmd-n1", "slurmd-n2", "slurmd-n3"):
            if not self.cluster.daemon("pid", name):
                self.cluster.daemon("start", name)
        for _ in range(100):
            states = self.cluster.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False).splitlines()
            for line in states:
                node, state = line.split()
                if state.startswith(("down", "drain", "drng")):
                    self.cluster.ask("scontrol", "update", f"nodename={node}", "state=resume", check=False)
            if len(states) == 3 and all(line.split()[1] in ("idle", "mix", "alloc", "comp") for line in states):
                break
            time.sleep(0.5)
        for line in self.cluster.ask("squeue", "-h", "-r", "-o", "%i|%r", check=False).splitlines():
            job, reason = line.split("|")
            if "held" in reason.lower():
                self.cluster.ask("scontrol", "release", job, check=False)

    def process(self) -> bool:
        owners = [held.owner for held in claims.survey(self.sweep.root) if held.owner.runs_here()]
        if owners:
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(owners).pid, signal.SIGKILL)
        return bool(owners)

    def _task(self, *command: str) -> bool:
        running = self.cluster.running()
        if running:
            self.cluster.ask(*command, self.random.choice(running), check=False)
        return bool(running)

    def cancelled(self) -> bool:
        return self._task("scancel")

    def requeued(self) -> bool:
        return self._task("scontrol", "requeue")

    def warned(self) -> bool:
        return self._task("scancel", "--signal=USR2")

    def preempted(self) -> bool:
        self.cluster.ask(
            *("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"),
            check=False,
        )
        return True

    def node_down(self) -> bool:
        node = f"nodename=n{self.random.randint(1, 3)}"
        self.cluster.ask("scontrol", "update", node, "state=down", "reason=chaos", check=False)
        return True

    def node_crashed(self) -> bool:
        self.cluster.daemon("crash", f"n{self.random.randint(1, 3)}")
        return True

    def slurmd(self) -> bool:
        self.cluster.daemon("kill", f"slurmd-n{self.random.randint(1, 3)}")
        return True

    def slurmctld(self) -> bool:
        self.cluster.daemon("kill", "slurmctld")
        return True

    def submitter(self) -> bool:
        process = self.sweep.start()
        time.sleep(self.random.uniform(1, 8))
        process.kill()
        process.communicate()
        return True

    def checkpoint(self) -> bool:
        files = self.sweep.checkpoints()
        if files:
            with suppress(FileNotFoundError):
                place = self.random.choice(files)
                place.write_bytes(place.read_bytes()[:-1] + b"x")
        return bool(files)


def main(seconds: float, seed: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="pai-", dir="/tmp"))
    cluster = Cluster.up(folder / "slurm", KILL_WAIT="4", GRACE="10", SLURMD_TIMEOUT="10")
    (folder / "nap.py").write_text(NAP)
    cells = (*CELLS, "--recipe", recipe(folder, 8))
    (folder / "undisturbed").mkdir()
    try:
        expected = undisturbed(folder / "undisturbed", *cells)
        sweep = Sweep(
            cluster, folder, *cells, "--plugin", "nap.py", "--slurm", "partition=scavenge", "--slurm", "parallelism=4"
        )
        chaos = Chaos(cluster, sweep, seed)
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(sweep.results()) < len(expected):
            with suppress(AssertionError, subprocess.TimeoutExpired):
                sweep.type("--retry", "failed")
            for _ in range(chaos.random.randint(1, 3)):
                time.sleep(chaos.random.uniform(2, 10))
                chaos.strike()
            chaos.heal()
        typed = 0
        while len(sweep.results()) < len(expected) and typed < 8:
            chaos.heal()
            with suppress(AssertionError, subprocess.TimeoutExpired):
                sweep.type("--wait", "--retry", "failed")
            typed += 1
        found = sweep.results()
        different = [n for n in found if any(found[n][key] != expected[n][key] for key in SAME)]
        resumed = sum(bool(result["provenance"]["earlier_attempts"]) for result in found.values())
        print(f"seed {seed}, {seconds:.0f} s: {', '.join(f'{n} x {what}' for what, n in chaos.done.most_common())}")
        print(
            f"{sum(chaos.done.values())} faults, {len(expected)} cells, typed {typed} times to complete;"
            f" {len(expected) - len(found)} lost, {len(sweep.duplicates())} doubled, {len(different)} different,"
            f" {resumed} resumed"
        )
        for note in sweep.duplicates():
            if not note["equal"]:
                print(f"doubled and different: {note}")
        if len(found) < len(expected) or different:
            print(f"kept: {folder}")
            return 1
        shutil.rmtree(folder / "results")
        return 0
    finally:
        cluster.down()


if __name__ == "__main__":
    arguments = [float(text) for text in sys.argv[1:]] + [300.0, 0.0][len(sys.argv) - 1 :]
    sys.exit(main(arguments[0], int(arguments[1])))
