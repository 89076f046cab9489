"""The real command line in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAI_BENCH = [sys.executable, "-m", "pai_bench"]
PATIENCE = 900.0
"""Seconds after which a command is taken to hang; many times what any takes, for machines with other work."""

# One epoch and a small model, so that a cell takes a second; the values are not a published protocol.
FAST = """
[init]
scheme = { value = "torch", source = "test" }
[train]
epochs = { value = EPOCHS, source = "test" }
batch_size = { value = 64, source = "test" }
lr = { value = 0.1, source = "test" }
momentum = { value = 0.9, source = "test" }
nesterov = { value = false, source = "test" }
weight_decay = { value = 0, source = "test" }
schedule = { value = "step", source = "test" }
milestones = { value = [], source = "test" }
gamma = { value = 0.1, source = "test" }
warmup_epochs = { value = 0, source = "test" }
evaluate_every = { value = 1, source = "test" }
[data]
padding = { value = 0, source = "test" }
flip = { value = false, source = "test" }
mean = { value = [0.3], source = "test" }
std = { value = [0.4], source = "test" }
[scoring]
batch_size = { value = 20, source = "test" }
batches = { value = 1, source = "test" }
dtype = { value = "float64", source = "test" }
[datasets.digits]
"""


DEBUG = ("--where", "debug")
"""Options for a sweep in which workers are not tested: the start of one takes seconds."""

MOODY = """
import os
import time
from dataclasses import dataclass
from pathlib import Path
from pai_bench.registry import register

@register("moody")
@dataclass(frozen=True)
class Moody:
    rounds: int = 2

    def __call__(self, problem):
        print("a method may print")
        # In the second round alone, so that the rehearsal before the sweep does not see it.
        late = not all(mask.all() for mask in problem.masks.values())
        if late and problem.density < 0.2 and not Path("calm").exists():
            HOW
        return {name: w.abs() for name, w in problem.weights.items()}
"""
"""Source of a plug-in with a method whose second round, at a density below 0.2, does HOW."""


def environment(folder: Path) -> dict[str, str]:
    """The caller's, without settings of its user."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PAI_BENCH_")}
    return {
        **clean,
        "PAI_BENCH_WHERE": "local",  # also on a login node
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "200",
    }


def recipe(folder: Path, epochs: int = 1) -> str:
    """The path of a fast recipe."""
    path = folder / f"fast{epochs}.toml"
    path.write_text(FAST.replace("EPOCHS", str(epochs)))
    return str(path)


_processes = multiprocessing.get_context("forkserver")
# Modules of every command, which are loaded once here, so that a test costs a fork and no import of torch.
_processes.set_forkserver_preload(
    ["pai_bench.cli.program", "pai_bench.analysis.command", "pai_bench.sweep.command", "rich.live", "pydantic"]
)


def _program(arguments: tuple[str, ...], folder: Path, env: dict[str, str], umask: int, out: Path, err: Path) -> None:
    """The console script's call, in a process that has just begun."""
    os.umask(umask)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["pai-bench", *arguments]
    from pai_bench.cli import main

    main()


def pai_bench(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `pai-bench` in a folder to its end, in a process of its own; `before` is called in it first."""
    settings = {**environment(folder), **(env or {})}
    if before is not None:
        command = [*PAI_BENCH, *arguments]
        return subprocess.run(
            command, cwd=folder, env=settings, preexec_fn=before, capture_output=True, text=True, timeout=PATIENCE
        )
    # The process is forked from a server, whose umask may be another one. It can be read only by setting it.
    umask = os.umask(0o077)
    os.umask(umask)
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch, "out"), Path(scratch, "err")
        process = _processes.Process(target=_program, args=(arguments, folder, settings, umask, out, err))
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"pai-bench {' '.join(arguments)} has not ended: {err.read_text()}")
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def results(root: Path) -> dict[str, dict[str, Any]]:
    """All results below a root by path."""
    return {str(path.relative_to(root)): json.loads(path.read_text()) for path in (root / "runs").rglob("*.json")}


def children(pid: int) -> list[int]:
    """Return the processes that a process has started; none if it has ended."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass  # the process has just ended
    return found


def alive(pid: int) -> bool:
    """Return True if the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what: Callable[[], Any], words: str = "a condition", seconds: float = 300, every: float = 0.02) -> Any:
    """Poll a condition until it is true, and return its value."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {words}"
        time.sleep(every)
    return found


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `pai-bench` in a folder, in a session of its own; kill it at the end."""
    process = subprocess.Popen(
        [*PAI_BENCH, *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def sweep(folder: Path, *more: str, methods: str = "random,snip", seeds: str = "0,1", epochs: int = 1) -> list[str]:
    """Return the arguments of a sweep of a fast recipe at two sparsities."""
    grid = ["--methods", methods, "--sparsities", "0.5,0.9", "--seeds", seeds, "--recipe", recipe(folder, epochs)]
    return ["sweep", *grid, *more]
