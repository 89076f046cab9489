"""Do a plan on this machine, from its first line to its last."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pai_bench import results
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.settings import Settings
from pai_bench.sweep.local.pool import MAX_DEATHS, Pool
from pai_bench.sweep.local.progress import Progress
from pai_bench.sweep.planning.plan import Plan, jobs


def run(plan: Plan, settings: Settings, messages: Console) -> int:
    """Do what is to do and wait for what others do; returns how many cells have no result in the end.

    Cells count that have failed or whose results cannot be written; raises KeyboardInterrupt when told to stop.
    """
    root = settings.results
    claims.clear(root, claims.survey(root))
    results.tidy(root)
    for line in _stubborn(plan, root):
        messages.print(line, highlight=False, markup=False)
    elsewhere = [planned.run for planned in plan.running]
    total, todo = len(plan.todo) + len(elsewhere), [planned.run for planned in plan.todo]
    with Progress(total, messages, todo) as progress, _terminated_as_interrupted():
        Pool(jobs(plan), settings, progress, elsewhere).run()
    return _conclude(progress, root, messages)


def _stubborn(plan: Plan, root: Path) -> list[str]:
    """Which of the cells to run have failed again and again in the same way."""
    found: Counter[str] = Counter()
    for planned in plan.todo:
        if planned.state == "failed":
            failure = results.read_failure(root, planned.run.cell, planned.run.recipe.name, planned.fingerprint)
            if failure is not None and failure.attempts >= MAX_DEATHS:
                found[failure.cause] += 1
    return [f"{n} x failed {MAX_DEATHS} times or more, tried again: {cause}" for cause, n in found.most_common()]


def _conclude(progress: Progress, root: Path, messages: Console) -> int:
    """Say how the sweep has ended; returns how many cells have no result for a reason that somebody must see to."""

    def say(text: str) -> None:
        messages.print(text, highlight=False, markup=False)

    if progress.n_elsewhere:
        say(f"{progress.n_elsewhere} of {progress.n_done} were done by others")
    if progress.causes:
        say(f"{progress.n_failed} cells failed; the rest is safe:")
        for cause, count in Counter(progress.causes.values()).most_common():
            say(f"  {count} x {cause}")
        say(f"tracebacks are in {results.failures_folder(root)}; --retry failed runs them again")
    left = progress.total - progress.n_done - progress.n_failed
    if progress.unwritten is not None:
        say(f"{left} cells are still to do: {progress.unwritten}")
        say("make room or mend the permissions, then type the same command again; what is finished is safe")
        return progress.n_failed + left
    return progress.n_failed


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let what ends a session (SIGTERM, SIGHUP) save running cells as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # What is ignored stays so: `nohup` lets a sweep outlive its terminal.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
