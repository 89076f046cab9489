"""Measure and check pai-bench on a GPU within a given time: python3 tests/gpu.py OUT [--seconds S] [--previous DIR].

The script needs a checkout and the packages that pai-bench imports; nothing is installed, and submitit may be a wheel
on PYTHONPATH. It runs a list of steps in the order of their value, each in a process of its own with a time limit. A
step that does not fit into the remaining time is left out. OUT contains at most three files:

    gpu.jsonl      one JSON record per line, appended as soon as it was measured
    state.tar.gz   results, logs and checkpoints of the sweeps, at most 15 MB
    log.txt        output of all steps

With --previous (the OUT of an earlier run), the steps that succeeded there are skipped, steps that failed there are
tried again after all others, and the sweeps continue. `python -m tests.gpu_page gpu.jsonl` writes docs/gpu.md.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDS, ARCHIVE, LOG = "gpu.jsonl", "state.tar.gz", "log.txt"
ARCHIVE_BYTES = 15_000_000
RESERVE = 15.0
"""Seconds kept for the archive at the end."""
STOP_SECONDS = 10.0
"""Seconds between SIGINT and SIGKILL for a step that has reached its time limit."""
ARCHIVE_SECONDS = 30.0
"""Seconds between archives during a step, twice those between checkpoints of a cell."""


@dataclass(frozen=True)
class Step:
    """One step: a module of `tests.gpu_steps` or pytest arguments, with its expected and its longest duration in s."""

    name: str
    title: str
    expected: float
    limit: float
    pytest: tuple[str, ...] = ()
    fills: bool = False
    """True for a step that uses all the remaining time and continues in the next run."""

    def command(self) -> list[str]:
        """Return the command line after the Python interpreter."""
        if not self.pytest:
            return ["-m", f"tests.gpu_steps.{self.name}"]
        # The project's own configuration turns warnings into errors and names plug-ins that the machine may lack.
        plain = ["-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-W", "default"]
        return ["-m", "pytest", *plain, "-q", "-rs", *self.pytest]


RISKY = "captured or side_by_side or stopped or packs or draws or assert"
STEPS = (
    Step("smoke", "versions, one kernel, one captured graph, free memory", 15, 40),
    Step("checks", "tests/cuda: captured steps, packs, resumed cells", 60, 100, ("tests/cuda", "-k", RISKY)),
    Step("training_step", "training step by precision, layout and mechanism; packs", 75, 110),
    Step("kernels", "one captured training step under the profiler", 20, 40),
    Step("scoring", "scoring in units of a pass; float64 convolutions; thresholds", 60, 90),
    Step("compilation", "compiled against captured training step", 60, 90),
    Step("cells", "cells of Fashion-MNIST, one kill -9, resume", 150, 190),
    Step("masks", "masks on the GPU against masks on the CPU", 60, 150),
    Step("parity", "accuracies of Fashion-MNIST cells in IEEE float32 and in TF32", 100, 180),
    Step("other_checks", "the remaining tests of tests/cuda", 90, 180, ("tests/cuda", "-k", f"not ({RISKY})")),
    Step("reference", "reference cells of CIFAR-10 with the recipe frankle", 120, 3600, fills=True),
)


def rehearsed(step: Step) -> Step:
    """Return a step with more time: a CPU, or the host under the stub of the CUDA libraries, is slower than a GPU."""
    return step if step.fills else replace(step, limit=10 * step.limit)


class Records:
    """The JSON-lines file; each record is written with one append, so that an interrupted run loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, **record: Any) -> None:
        """Append one record."""
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all complete records; a line cut off by a crash is left out."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def outcomes(self) -> dict[str, str]:
        """Return the outcome of the last attempt by step: "ok", "failed" or "timed out"."""
        return {record["step"]: record["outcome"] for record in self.read() if record.get("what") == "end"}


def ordered(steps: Iterable[Step], outcomes: dict[str, str]) -> list[Step]:
    """Return the steps that are left: those never tried, then those that failed, then those that fill the time."""
    left = [step for step in steps if outcomes.get(step.name) != "ok"]
    return sorted(left, key=lambda step: (step.fills, step.name in outcomes))


def run_steps(
    steps: Sequence[Step],
    records: Records,
    run: Callable[[Step, float], str],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    after: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run the steps that fit into `seconds`; return the names of the steps that did not succeed."""
    end = clock() + seconds - RESERVE
    for step in ordered(steps, records.outcomes()):
        remaining = end - clock()
        if remaining < step.expected:
            print(f"{step.name}: left out, {remaining:.0f} of about {step.expected:.0f} s remain", flush=True)
            continue
        began = clock()
        outcome = run(step, min(step.limit, remaining))
        records.append(step=step.name, what="end", outcome=outcome, seconds=round(clock() - began, 1), title=step.title)
        print(f"{step.name}: {outcome} after {clock() - began:.0f} s", flush=True)
        after()
    outcomes = records.outcomes()
    return [step.name for step in steps if outcomes.get(step.name) != "ok"]


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent dies (Linux), so that no step outlives a killed script."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def run_process(
    command: Sequence[str], env: dict[str, str], log: Path, limit: float, meanwhile: Callable[[], None] = lambda: None
) -> str:
    """Run a Python process with its output in `log`; at the time limit send SIGINT and then SIGKILL to its group.

    `meanwhile` is called every `ARCHIVE_SECONDS`.
    """
    end = time.monotonic() + limit
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            while (remaining := end - time.monotonic()) > ARCHIVE_SECONDS:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return "ok" if process.wait(ARCHIVE_SECONDS) == 0 else "failed"
                meanwhile()
            return "ok" if process.wait(max(0.0, remaining)) == 0 else "failed"
        except subprocess.TimeoutExpired:
            for sent in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, sent)
                try:
                    process.wait(STOP_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
            return "timed out"
        finally:
            # A step's own children must not keep the GPU busy while the next step measures.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def pack(work: Path, archive: Path, limit: int = ARCHIVE_BYTES) -> list[str]:
    """Archive the files below `work`, the newest checkpoints last, within `limit` bytes; return the names left out.

    The files may change or disappear meanwhile.
    """
    files = []
    for path in work.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                files.append(("checkpoints" in path.parts, -path.stat().st_mtime, path))
    left_out, partial = [], archive.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as tar:
        for *_, path in sorted(files):
            name = str(path.relative_to(work))
            try:
                # Uncompressed size: an upper bound that holds for checkpoints, which do not compress.
                if tar.offset > 4 * limit or partial.stat().st_size + path.stat().st_size > limit:
                    left_out.append(name)
                    continue
                member, content = tar.gettarinfo(path, name), path.read_bytes()
            except OSError:
                continue
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            tar.fileobj.flush()  # type: ignore[union-attr]
    partial.replace(archive)
    return left_out


def restore(previous: Path, out: Path, work: Path) -> None:
    """Copy the records of an earlier run into `out`, which may be its folder, and unpack its archive into `work`."""
    if (previous / RECORDS).exists() and previous != out:
        shutil.copy(previous / RECORDS, out / RECORDS)
    if (previous / ARCHIVE).exists():
        with tarfile.open(previous / ARCHIVE) as tar:
            tar.extractall(work, filter="data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; exit code 0 when every step has succeeded, 3 when steps are left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=lambda text: Path(text).resolve(), help="output folder")
    parser.add_argument("--seconds", type=float, default=540.0, help="time limit of the whole run [540]")
    parser.add_argument("--previous", type=lambda text: Path(text).resolve(), help="output folder of an earlier run")
    parser.add_argument("--steps", help="comma-separated names of steps [all]")
    parser.add_argument("--data", type=lambda text: Path(text).resolve(), help="folder with the data sets")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses with tiny sizes")
    options = parser.parse_args(arguments)
    names = [step.name for step in STEPS]
    chosen = options.steps.split(",") if options.steps else names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"unknown steps {', '.join(unknown)}; known: {', '.join(names)}")
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="pai-gpu-"))
    records = Records(options.out / RECORDS)
    rehearsal = options.device == "cpu" or bool(os.environ.get("PAI_TEST_STUB"))
    if options.previous is not None:
        restore(options.previous, options.out, work)
        if any(r["what"] == "run" and r["rehearsal"] != rehearsal for r in records.read()):
            parser.error("--previous: a rehearsal and a run on a GPU cannot continue each other")
    records.append(step="run", what="run", rehearsal=rehearsal)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
        "PAI_TEST_DEVICE": options.device,
        "PAI_GPU_RECORDS": str(records.path),
        "PAI_GPU_WORK": str(work),
        "PAI_BENCH_WHERE": "local",
        "PAI_BENCH_CHECKPOINT_EVERY": str(ARCHIVE_SECONDS / 2),
        **({"PAI_BENCH_DATA": str(options.data)} if options.data else {}),
    }
    log = options.out / LOG

    def archive() -> None:
        left_out = pack(work, options.out / ARCHIVE)
        if left_out:
            print(f"not archived: {len(left_out)} files, such as {left_out[0]}", flush=True)

    def run(step: Step, limit: float) -> str:
        with log.open("a") as file:
            file.write(f"\n=== {step.name}: {step.title}\n")
        # A filling step stops by itself shortly before its limit, so that its cells save checkpoints.
        settings = {**env, "PAI_GPU_STEP": step.name, "PAI_GPU_SECONDS": str(limit)}
        return run_process(step.command(), settings, log, limit, archive)

    try:
        steps = [rehearsed(step) if rehearsal else step for step in STEPS if step.name in chosen]
        left = run_steps(steps, records, run, options.seconds, after=archive)
    finally:
        archive()
        shutil.rmtree(work, ignore_errors=True)
    print(f"steps left: {', '.join(left) or 'none'}")
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
