"""Run a plan on this machine, and print its progress and summary."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pai_bench import results
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.local.pool import HANG_SECONDS, MAX_DEATHS, Pool
from pai_bench.sweep.local.progress import Progress
from pai_bench.sweep.planning.plan import Plan, jobs


def run(
    plan: Plan,
    settings: RunSettings,
    messages: Console,
    *,
    workers: int | None = None,
    hang_after: float = HANG_SECONDS,
) -> int:
    """Run the cells to do and wait for cells of other processes; return the number of cells without a result.

    These are cells that failed or whose results cannot be written.

    Raises: KeyboardInterrupt when interrupted.
    """
    root = settings.root
    # Claims are cleared first, because tidy keeps the checkpoints of every cell with a claim.
    claims.clear(root, claims.survey(root))
    results.tidy(root)
    for line in _repeated_failures(plan, root):
        messages.print(line, highlight=False, markup=False)
    elsewhere = [planned.run for planned in plan.running]
    total, todo = len(plan.todo) + len(elsewhere), [planned.run for planned in plan.todo]
    with Progress(total, messages, todo) as progress, _signals_as_interrupts():
        Pool(jobs(plan), settings, progress, elsewhere, workers=workers, hang_after=hang_after).run()
    return _summarise(progress, root, messages)


def _repeated_failures(plan: Plan, root: Path) -> list[str]:
    """Describe the cells to run that have failed repeatedly with the same cause."""
    found: Counter[str] = Counter()
    for planned in plan.todo:
        if planned.state == "failed":
            failure = results.read_failure(root, planned.key)
            if failure is not None and failure.attempts >= MAX_DEATHS:
                found[failure.cause] += 1
    return [f"{n} x failed {MAX_DEATHS} times or more, tried again: {cause}" for cause, n in found.most_common()]


def _summarise(progress: Progress, root: Path, messages: Console) -> int:
    """Print the summary of the sweep; return the number of cells without a result that require action by the user."""

    def say(text: str) -> None:
        messages.print(text, highlight=False, markup=False)

    if progress.n_elsewhere:
        say(f"{progress.n_elsewhere} of {progress.n_done} were completed by other processes")
    if progress.causes:
        say(f"{progress.n_failed} cells failed; all other results are safe:")
        for cause, count in Counter(progress.causes.values()).most_common():
            say(f"  {count} x {cause}")
        say(f"tracebacks are in {results.failures_folder(root)}; --retry failed runs them again")
    left = progress.total - progress.n_done - progress.n_failed
    if progress.unwritten is not None:
        say(f"{left} cells remain: {progress.unwritten}")
        say("free disk space or correct the permissions, then run the same command again; finished cells are safe")
        return progress.n_failed + left
    return progress.n_failed


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that running cells are saved when a session ends."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # Ignored signals stay ignored: `nohup` lets a sweep continue after its terminal is closed.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
