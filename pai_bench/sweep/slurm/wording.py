"""Messages to the user about submissions and the state of the queue."""

from __future__ import annotations

from collections.abc import Callable

from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.slurm import in_flight
from pai_bench.sweep.slurm.submitter import SubmissionReport, SubmissionSettings, Submitter, Work


def announce(work: Work, settings: SubmissionSettings) -> str:
    """Return one line with the number of cells and tasks, the resources, the time limit and the cost."""
    profile = settings.profile
    n_cells = sum(len(task) for task in (*work.canaries, *work.tasks))
    longest = max(len(task) for task in (*work.canaries, *work.tasks))
    minutes = max(work.minutes(part, profile) for part in (work.canaries, work.tasks) if part)
    cost = (
        f"about {work.hours() * (profile.gpus or profile.cpus_per_task):.1f} {'GPU' if profile.gpus else 'core'}-hours"
    )
    return (
        f"SLURM: {n_cells} cells in {work.n_tasks} tasks of up to {longest}, profile {profile.name}, partition"
        f" {profile.partition or 'default'}, {profile.gpus} GPU, limit {duration(60 * minutes)} a task, {cost}"
        + (f"; {len(work.canaries)} canaries first" if work.canaries else "")
    )


def notes(flight: in_flight.InFlight) -> list[str]:
    """Return warnings about cells in flight: unknown states, invisible jobs, and tasks that need intervention."""
    notes = []
    if flight.silent:
        notes.append(
            f"SLURM does not respond ({flight.silent}): {len(flight.unknown)} submitted cells are unknown, not lost;"
            " they are not submitted again"
        )
    if flight.unlisted:
        names = ", ".join(chunk.job or f"of chunk {chunk.sweep}/{chunk.token}" for chunk in flight.unlisted)
        notes.append(
            f"squeue does not show the jobs {names}, which were submitted a short time ago or are running: their cells"
            " are not submitted again now"
        )
    if flight.elsewhere:
        notes.append(
            f"jobs of {', '.join(sorted(flight.elsewhere))} are not visible here (they belong to another cluster"
            " or another user); if they have ended, remove their folders from state/sweeps"
        )
    for meaning in dict.fromkeys(task.meaning for task in flight.tasks if task.waits):
        if meaning.remedy is not None:
            tasks = [task for task in flight.tasks if task.waits and task.meaning == meaning]
            notes.append(f"{len(tasks)} tasks wait: {meaning.words}; {meaning.remedy.format(job=tasks[0].job)}")
    return notes


def show(submitter: Submitter, as_json: bool) -> None:
    """Print the batch script of each kind of chunk; print nothing when stdout is reserved for JSON."""
    if as_json:
        return
    shown: list[str] = []
    for script, _ in submitter.scripts():
        if not shown or ("dependency" in script) > ("dependency" in shown[-1]):
            print(script)
            shown.append(script)


def report(submission: SubmissionReport, n_calls: int, say: Callable[[str], None]) -> None:
    """Print the outcome of a submission."""
    n_tasks = sum(chunk.n_tasks for chunk in submission.accepted)
    ids = [chunk.job for chunk in submission.accepted]
    jobs = f"job {', '.join(ids)}" if len(ids) <= 3 else f"{len(ids)} jobs, {ids[0]} to {ids[-1]}"
    if submission.accepted:
        say(f"submitted sweep {submission.sweep}: {n_tasks} tasks as {jobs}; SLURM was called {n_calls} times")
    if submission.n_unknown:
        say(
            f"it is unknown if SLURM accepted {submission.n_unknown} tasks: sbatch's reply was lost"
            f" ({submission.cause}). Nothing is submitted twice: the same command finds their job, or submits them"
            f" {in_flight.GRACE_SECONDS / 60:.0f} minutes from now; pai-bench cancel ends it"
        )
        if submission.n_left:
            say(f"{submission.n_left} more tasks were not submitted: the same command submits them later")
    elif submission.cause:
        say(
            f"SLURM did not accept the other {submission.n_left} tasks ({submission.cause}): the same command submits"
            " them later"
        )
