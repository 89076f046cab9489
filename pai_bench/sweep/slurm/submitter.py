"""Submission of a plan: cells are packed into tasks, tasks cut into chunks, and chunks submitted and recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pai_bench.core import plugins
from pai_bench.errors import PaiBenchError
from pai_bench.experiment import provenance
from pai_bench.experiment.runner import Run
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.execution.packing import alike
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.planning.plan import Plan, jobs
from pai_bench.sweep.slurm import answers, sbatch, sizing
from pai_bench.sweep.slurm.controller import Controller
from pai_bench.sweep.slurm.ledger import Ledger
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.specification import Entry, Spec

Runs = tuple[Run, ...]


@dataclass(frozen=True)
class SubmissionSettings:
    """Settings shared by all jobs of a sweep: those of its runs, the cluster's profile, and the options of SLURM."""

    run: RunSettings
    profile: Profile
    cells_per_job: int | None = None
    any_code: bool = False


@dataclass(frozen=True)
class Work:
    """Tasks to submit, with their canaries, the expected durations of the cells, and the fingerprints."""

    tasks: tuple[Runs, ...]
    canaries: tuple[Runs, ...]
    seconds: Mapping[Run, float]
    fingerprints: Mapping[Run, str]

    def minutes(self, tasks: Sequence[Runs], profile: Profile) -> int:
        """Return the time limit of these tasks in minutes."""
        return sizing.limit_minutes([[self.seconds[run] for run in task] for task in tasks], profile.time)

    @property
    def n_tasks(self) -> int:
        return len(self.tasks) + len(self.canaries)

    def hours(self) -> float:
        """Return the expected total duration of all cells in hours."""
        return sum(self.seconds[run] for task in (*self.canaries, *self.tasks) for run in task) / 3600


@dataclass(frozen=True)
class Accepted:
    """Chunk that SLURM has accepted."""

    token: str
    job: str
    n_tasks: int
    minutes: int


@dataclass(frozen=True)
class SubmissionReport:
    """Outcome of a submission: accepted chunks, and the number of tasks not accepted or unknown."""

    sweep: str
    accepted: tuple[Accepted, ...]
    n_left: int = 0
    """Number of tasks that SLURM did not accept."""
    cause: str | None = None
    n_unknown: int = 0
    """Number of tasks that SLURM may have accepted: the reply was lost."""


def pack(plan: Plan, seconds: Mapping[Run, float], settings: SubmissionSettings, canary: bool) -> Work:
    """Pack the planned cells into tasks.

    With `canary`, the first cell of each data set and model runs in a task of its own, before all others.
    """
    groups = [job.runs for job in jobs(plan)]
    ahead: dict[tuple[str, str], Run] = {}
    if canary:
        for run in (run for group in groups for run in group):
            ahead.setdefault((run.cell.dataset, run.cell.model), run)
        first = set(ahead.values())
        groups = [tuple(run for run in group if run not in first) for group in groups]
    runs = [run for group in groups for run in group]
    size = settings.cells_per_job or sizing.cells_per_task([seconds[run] for run in runs], settings.profile.parallelism)
    tasks: list[list[Run]] = []
    for group in groups:
        for start in range(0, len(group), size):
            part = group[start : start + size]
            # Merge groups with the same data set and model into one task, which then loads the data once. Cells that
            # share a pruning score form one group, so that the score is computed once.
            if tasks and len(tasks[-1]) + len(part) <= size and alike(tasks[-1][0], part[0]):
                tasks[-1] += part
            else:
                tasks.append(list(part))
    fingerprints = {item.run: item.fingerprint for item in plan.todo}
    return Work(tuple(map(tuple, tasks)), tuple((run,) for run in ahead.values()), seconds, fingerprints)


class Submitter:
    """Submitter of the chunks of one sweep."""

    def __init__(
        self,
        settings: SubmissionSettings,
        work: Work,
        controller: Controller,
        ended_jobs: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.work = work
        self._controller = controller
        self._ended_jobs = dict(ended_jobs or {})
        # MaxArraySize = 0 means that job arrays are disabled: submit one task per job.
        self._size = max(1, min(settings.profile.max_array, controller.limits().max_array_size))
        self.sweep = Ledger.new_sweep()
        self._number = 0

    def scripts(self) -> list[tuple[str, int]]:
        """Return the batch script of each chunk and its number of tasks, without submitting."""
        found = []
        for after, tasks in (("CANARY" if kind else None, part) for kind, part in self._parts()):
            spec, request = self._chunk(tasks, after)
            found.append((sbatch.script(spec, request), len(tasks)))
        return found

    def submit(self, owner: Owner, say: Callable[[str], None]) -> SubmissionReport:
        """Submit all chunks; accepted chunks stay submitted when a later one is refused.

        Raises: PaiBenchError when SLURM refuses the first chunk for a permanent reason.
        """
        ledger = Ledger(self.settings.run.root, self.sweep)
        accepted: list[Accepted] = []
        canary: str | None = None
        left = deque(self._parts())
        while left:
            follows, tasks = left.popleft()
            spec, request = self._chunk(tasks, canary if follows else None)
            # Write the specification before the ledger line, so that every reader of the line finds the cells.
            spec.write()
            # The line precedes sbatch, so that the job of a submitter that is killed meanwhile is found by its tag.
            ledger.submitting(spec, self._controller.limits().cluster, asdict(owner))
            self._controller.calls["sbatch"] += 1
            try:
                job = sbatch.submit(spec, request)
            except answers.Unanswered as lost:
                found = sbatch.find(spec, self._controller)
                if found is None:
                    # A later command adopts the job, if there is one. Until then its cells count as submitted.
                    ledger.unanswered(spec.token, str(lost))
                    n_left = sum(len(part) for _, part in left)
                    return SubmissionReport(self.sweep, tuple(accepted), n_left, str(lost), n_unknown=len(tasks))
                job = found
            except KeyboardInterrupt:
                # The controller may have accepted the job before sbatch was interrupted.
                ledger.unanswered(spec.token, "interrupted")
                raise
            except answers.Refused as refusal:
                words = str(refusal)
                ledger.refused(spec.token, words)
                if refusal.too_large and len(tasks) > 1:
                    # SLURM does not name the limit, so chunks are halved until one is accepted.
                    self._size = len(tasks) // 2
                    rest = tasks + tuple(task for _, part in left if _ == follows for task in part)
                    left = deque([*self._cut(rest, follows), *(pair for pair in left if pair[0] != follows)])
                    continue
                if not accepted and not refusal.passing:
                    raise PaiBenchError(f"SLURM refuses the jobs: {words}", answers.explain(words)) from None
                n_left = len(tasks) + sum(len(part) for _, part in left)
                return SubmissionReport(self.sweep, tuple(accepted), n_left, words)
            ledger.submitted(spec.token, job)
            accepted.append(Accepted(spec.token, job, len(tasks), request.minutes))
            say(f"job {job}: {len(tasks)} tasks")
            if not follows and self.work.canaries:
                canary = job if canary is None else f"{canary}:{job}"
        return SubmissionReport(self.sweep, tuple(accepted))

    def _parts(self) -> list[tuple[bool, tuple[Runs, ...]]]:
        """Return the chunks as pairs (waits for the canaries, tasks)."""
        return [*self._cut(self.work.canaries, False), *self._cut(self.work.tasks, bool(self.work.canaries))]

    def _cut(self, tasks: tuple[Runs, ...], follows: bool) -> Iterator[tuple[bool, tuple[Runs, ...]]]:
        for start in range(0, len(tasks), self._size):
            yield follows, tasks[start : start + self._size]

    def _chunk(self, tasks: tuple[Runs, ...], after: str | None) -> tuple[Spec, sbatch.Request]:
        run, profile = self.settings.run, self.settings.profile
        minutes = self.work.minutes(tasks, profile)
        n_chunks = -(-len(self.work.tasks) // self._size) or 1
        self._number += 1
        recipes = {recipe: recipe.as_dict() for recipe in {item.recipe for task in tasks for item in task}}
        spec = Spec(
            sweep=self.sweep,
            token=f"c{self._number:03d}",
            # Relative paths depend on the working directory, which a job need not share.
            settings=replace(
                run, data_dir=run.data_dir and run.data_dir.absolute(), plugins=tuple(map(Path.absolute, run.plugins))
            ),
            code={"pai-bench": provenance.source_hash(), **plugins.plugins()},
            any_code=self.settings.any_code,
            requeue=profile.requeue,
            gpus=profile.gpus,
            # The rest of the time is for the requeue and the end of the process, before SLURM kills the task.
            patience=0.7 * sbatch.signal_seconds(profile, minutes),
            ended_jobs=self._ended_jobs,
            tasks=tuple(
                tuple(Entry(item.cell, recipes[item.recipe], self.work.fingerprints[item]) for item in task)
                for task in tasks
            ),
        )
        # SLURM applies the limit to each array, but the profile limits the whole sweep.
        parallelism = max(1, profile.parallelism // n_chunks)
        return spec, sbatch.Request(profile, minutes, parallelism, after)
