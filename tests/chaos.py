"""Kill a sweep repeatedly, start it again each time, and compare its results with those of an undisturbed sweep.

    python tests/chaos.py --kills 100 [--seed 0]

Workers and the sweep itself are killed (SIGKILL) at random moments of training; in between checkpoints are damaged, a
second sweep is started on the same folder, heartbeats are moved by an hour, everything is killed at once. The same
command is typed until nothing is missing. Exit code 0 only if no cell is lost, doubled or different.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pai_bench import results
from pai_bench.sweep.execution.claims import survey
from tests.cli.program import PAI_BENCH, alive, children, environment, recipe

COMPARED = ("accuracy", "curve", "init_hash", "mask_hash", "status", "effective_sparsity", "n_kept")


class Sweeps:
    """The processes of one sweep command on one folder."""

    def __init__(self, folder: Path, root: str, epochs: int, workers: int) -> None:
        self.root = folder / root
        self.folder = folder
        self.seeds = 6
        self.running: list[subprocess.Popen[bytes]] = []
        self.log = (folder / f"{root}.log").open("ab")
        self._recipe = recipe(folder, epochs)
        self._workers = workers

    def start(self) -> subprocess.Popen[bytes]:
        """Type the command."""
        grid = ["--methods", "random,snip,magnitude", "--sparsities", "0.5,0.8,0.9", "--seeds", f"0-{self.seeds - 1}"]
        how = ["--recipe", self._recipe, "--workers", str(self._workers), "--checkpoint-every", "0.2"]
        process = subprocess.Popen(
            [*PAI_BENCH, "sweep", *grid, *how, "--retry", "failed", "--results", str(self.root)],
            cwd=self.folder,
            env=environment(self.folder),
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def alive(self) -> list[subprocess.Popen[bytes]]:
        """Return the processes that have not ended."""
        self.running = [process for process in self.running if process.poll() is None]
        return self.running

    def finish(self) -> None:
        """Let it end in peace, twice if need be: the first may have had work left that others held."""
        while True:
            for process in self.alive():
                process.wait()
            if self.start().wait() == 0 and len(list(results.result_paths(self.root))) == self.cells():
                return
            time.sleep(1)

    def cells(self) -> int:
        """Return the number of cells of the grid, including the dense ones."""
        return 10 * self.seeds

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self.alive():
            process.kill()
            process.wait()
        self.log.close()


class Chaos:
    """Faults that are injected into a sweep."""

    def __init__(self, sweeps: Sweeps, seed: int) -> None:
        self.sweeps = sweeps
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def kill_one(self) -> bool:
        """Kill a process that works on a cell, or a sweep; whether there was one."""
        sweeps = [process.pid for process in self.sweeps.alive()]
        workers = {child for pid in sweeps for child in children(pid)}
        busy = sorted({held.owner.pid for held in survey(self.sweeps.root)} & workers)
        if not busy:
            return False
        time.sleep(self.random.uniform(0, 5))
        dice = self.random.random()
        if dice < 0.7:
            self._kill("worker", [self.random.choice(busy)])
        elif dice < 0.9:
            self._kill("sweep", [self.random.choice(sweeps)])
        else:
            self._kill("everything", [*sweeps, *workers])
        return True

    def _kill(self, what: str, pids: Sequence[int]) -> None:
        killed = 0
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        self.counts["kills"] += bool(killed)
        self.counts[f"kills: {what}"] += bool(killed)

    def disturb(self) -> None:
        """Now and then something else happens."""
        dice = self.random.random()
        if dice < 0.15:
            self.damage_a_checkpoint()
        elif dice < 0.25 and len(self.sweeps.alive()) == 1:
            self.sweeps.start()
            self.counts["second sweeps"] += 1
        elif dice < 0.35:
            self.move_clocks()

    def damage_a_checkpoint(self) -> None:
        """Cut the newest one short, or turn a byte of it."""
        found = list((self.sweeps.root / "state" / "checkpoints").rglob("*.checkpoint"))
        try:
            path = max(found, key=lambda path: path.stat().st_mtime)
            content = bytearray(path.read_bytes())
            if self.random.random() < 0.5:
                del content[self.random.randrange(len(content)) :]
            else:
                content[self.random.randrange(len(content))] ^= 0xFF
            path.write_bytes(content)
            self.counts["checkpoints damaged"] += 1
        except (ValueError, FileNotFoundError):
            pass  # there is none, or it has just been replaced

    def move_clocks(self) -> None:
        """Move the times of all heartbeats and claims by an hour."""
        hours = self.random.choice((-1, 1))
        for path in (self.sweeps.root / "state" / "claims").rglob("*"):
            try:
                if path.is_file():
                    then = path.stat().st_mtime + 3600 * hours
                    os.utime(path, (then, then))
            except FileNotFoundError:
                pass
        self.counts["clocks moved"] += 1


def second_results(root: Path) -> list[Path]:
    """The notes on results that came second."""
    return list(results.duplicates_folder(root).rglob("*.json"))


def compare(reference: Path, root: Path) -> tuple[int, int, int]:
    """Return the numbers of cells that are lost, doubled, and different from the reference."""
    expected, found = ({path.relative_to(r): path for path in results.result_paths(r)} for r in (reference, root))
    read = {name: results.read(path) for name, path in found.items()}
    lost = len(expected.keys() - found.keys())
    doubled = len(found) - len({(result.cell, result.recipe) for result in read.values()})
    different = 0
    for name, path in expected.items():
        if name in found:
            ours, theirs = read[name], results.read(path)
            masks, others = results.read_masks(found[name]), results.read_masks(path)
            same = all(getattr(ours, key) == getattr(theirs, key) for key in COMPARED)
            same = same and masks.keys() == others.keys()
            different += not (same and all(np.array_equal(masks[key], others[key]) for key in masks))
    different += sum(not json.loads(path.read_text())["equal"] for path in second_results(root))
    return lost, doubled, different


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=16, help="of a cell: the more, the longer it can be killed")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pai-bench-chaos-") as name:
        reference = Sweeps(Path(name), "reference", options.epochs, options.workers)
        victim = Sweeps(Path(name), "victim", options.epochs, options.workers)
        chaos = Chaos(victim, options.seed)
        try:
            began = time.monotonic()
            reference.finish()
            print(f"reference: {reference.cells()} cells in {time.monotonic() - began:.0f} s", flush=True)
            began = time.monotonic()
            while chaos.counts["kills"] < options.kills:
                if not victim.alive():
                    if len(list(results.result_paths(victim.root))) == victim.cells():
                        victim.seeds += 1  # all is done before all kills were: more cells, in the reference too
                    victim.start()
                    chaos.counts["starts"] += 1
                if chaos.kill_one():
                    chaos.disturb()
                    kills = chaos.counts["kills"]
                    if kills % 10 == 0:
                        done = len(list(results.result_paths(victim.root)))
                        print(f"{kills} kills, {done} of {victim.cells()} cells", flush=True)
                time.sleep(0.05)
            victim.finish()
            reference.seeds = victim.seeds
            reference.finish()
            lost, doubled, different = compare(reference.root, victim.root)
            logs = [path.read_text() for path in (victim.root / "state" / "logs" / "cells").rglob("*.log")]
            resumed = sum(text.count("resumes from a checkpoint") for text in logs)
            passed = sum(text.count("is skipped") for text in logs)
            second = len(second_results(victim.root))
            print(f"time: {time.monotonic() - began:.0f} s, seed {options.seed}")
            print(", ".join(f"{what} {count}" for what, count in sorted(chaos.counts.items())))
            print(f"resumed from a checkpoint {resumed}, damaged ones skipped {passed}, second results {second}")
            print(f"kills {chaos.counts['kills']}, cells {victim.cells()}, ", end="")
            print(f"lost {lost}, doubled {doubled}, different {different}")
            return int(bool(lost or doubled or different))
        finally:
            reference.close()
            victim.close()


if __name__ == "__main__":
    sys.exit(main())
