"""Considerate use of SLURM: held jobs end a wait, queries are rare, files of dead workers are removed, and values
that sbatch would misread are refused."""

from __future__ import annotations

import io
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.doctor import job as doctor_job
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.monitoring import command as watching
from pai_bench.sweep.planning.plan import make_plan
from pai_bench.sweep.slurm import cached_survey, in_flight, profiles, sbatch
from pai_bench.sweep.slurm import wait as follow
from pai_bench.sweep.slurm.controller import Controller
from pai_bench.sweep.slurm.pending_reasons import explain
from tests.cli.program import pai_bench, recipe
from tests.unit import test_slurm
from tests.unit.test_results import MASKS, result
from tests.unit.test_slurm import RECIPE, checkpoint, command, key, n_queued, sweep

home = test_slurm.home


@pytest.mark.parametrize(
    "reason",
    [
        *("job requeued in held state", "(launch failed requeued held)", "launch failure limit exceeded requeued held"),
        *(
            "JobHoldMaxRequeue",
            "JobHeldAdmin",
            "JobHeldUser",
            "ReservationDeleted",
            "job requeued in special exit state",
        ),
        "held for an unknown reason",
    ],
)
def test_every_reason_of_a_held_job_has_a_remedy(reason: str) -> None:
    assert "scontrol release {job}" in str(explain(reason).remedy)


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"])
def test_held_states_without_a_reason_count_as_stuck(state: str) -> None:
    task = in_flight.Task("5", state, "None", "", "s", "c", ())
    assert task.waits and task.meaning.stuck and not explain("None").stuck


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", ["PENDING|job requeued in held state", "REQUEUE_HOLD|None", "PENDING|JobHoldMaxRequeue"]
)
def test_a_wait_ends_at_held_jobs_with_a_remedy(home: Path, row: str) -> None:
    sweep(home, "random")
    queue = home / "queue"
    queue.write_text(queue.read_text().replace("PENDING|Resources", row))
    code, said = sweep(home, "random", wait=True)
    assert code == 1 and "scontrol release 100" in said and "1 cells wait for an action of the user" in said
    assert "no job or process runs them" not in said and n_queued(home) == 1


@pytest.mark.slow
def test_a_wait_that_held_jobs_end_exits_with_1(home: Path) -> None:
    sweep(home, "random")  # puts the commands of SLURM there
    (home / "queue").write_text("")
    cells = ("--methods", "random", "--datasets", "digits", "--models", "conv8", "--sparsities", "0.9", "--seeds", "0")
    place = ("--where", "slurm", "--profile", "cpu", "--slurm", "max_array=1", "--cells-per-job", "1")
    asked = ("sweep", *place, *cells, "--recipe", recipe(home))
    submitted = pai_bench(home, *asked)
    assert submitted.returncode == 0 and n_queued(home) >= 1, submitted.stderr
    queue = (home / "queue").read_text()
    (home / "queue").write_text(queue.replace("PENDING|Resources", "PENDING|job requeued in held state"))
    ended = pai_bench(home, *asked, "--wait")
    assert ended.returncode == 1 and "cells wait for an action of the user" in ended.stderr, ended.stderr


def followed(home: Path) -> follow.WaitOutcome:
    runs = [Run(Cell("random", "digits", "conv8", 0.9, 0), RECIPE)]
    return follow.follow(home, make_plan(runs, home).runs, Controller(), Console(file=io.StringIO()))


@pytest.mark.slow
@pytest.mark.parametrize(("patience", "n_lost"), [(30.0, 0), (0.0, 1)])
def test_a_result_that_becomes_visible_late_is_not_lost(
    home: Path, monkeypatch: pytest.MonkeyPatch, patience: float, n_lost: int
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(follow, "LATE_SECONDS", patience)
    monkeypatch.setattr(in_flight, "GRACE_SECONDS", 0.0)
    sweep(home, "random")
    (home / "queue").write_text("")
    at = key("random")
    place = at.path(home)
    place.parent.mkdir(parents=True)
    late = threading.Timer(0.5, place.touch)
    late.start()
    ended = followed(home)
    late.cancel()
    assert (len(ended.lost), ended.n_done) == (n_lost, 1 - n_lost)


def test_the_grace_for_late_results_exceeds_the_nfs_cache() -> None:
    assert follow.LATE_SECONDS >= 60 + 20


def counting(home: Path) -> None:
    """Make squeue and scontrol log their calls."""
    for name in ("squeue", "scontrol"):
        place = home / "bin" / name
        command(home, name, f"echo {name} >> {home}/calls\n" + place.read_text().partition("\n")[2])


def n_calls(home: Path) -> dict[str, int]:
    lines = (home / "calls").read_text().split()
    return {name: lines.count(name) for name in ("squeue", "scontrol")}


@pytest.mark.slow
def test_the_queue_is_queried_every_half_minute_and_the_limits_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(home, "random")
    counting(home)
    now = [1000.0]
    monkeypatch.setattr(cached_survey, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one = cached_survey.CachedSurvey(home, Controller())
    for _ in range(1800):
        assert len(one.look().names()) == 1
        now[0] += 0.1
    # Queries at 0, 15, 30, 45 s, and then every 30 s for three minutes.
    assert n_calls(home) == {"squeue": 8, "scontrol": 1}


@pytest.mark.slow
def test_repeated_redraws_of_the_status_share_one_query(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(home, "random")
    counting(home)
    drawn = [0]

    def sleep(seconds: float) -> None:
        drawn[0] += 1
        if drawn[0] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))
    assert not watching.run(home, 0.1, as_json=False)
    assert capsys.readouterr().out.count("1 queued") == 5 and n_calls(home) == {"squeue": 1, "scontrol": 1}


def test_doctor_queries_rarely_while_its_job_is_pending_and_accepts_a_late_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_slurm.controller(home)
    counting(home)
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] == 1020.0:
            (home / "answer").write_text('{"seen": true}')

    monkeypatch.setattr(doctor_job, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert doctor_job._wait(home / "answer", "5", Controller(), lambda text: None) == {"seen": True}
    assert n_calls(home)["squeue"] == 2
    (home / "answer").unlink()
    with pytest.raises(doctor_job._NoAnswer, match="ended without a response"):
        doctor_job._wait(home / "answer", "5", Controller(), lambda text: None)
    assert n_calls(home)["squeue"] == 5


def finished(home: Path, method: str, job: str) -> tuple[Path, Path]:
    """Create a finished cell whose worker died before it removed the claim and the checkpoint; returns their paths."""
    at = key(method)
    recipe = {"recipe": at.recipe, "fingerprint": at.fingerprint}
    results.write(home, result(method=method, seed=0, **recipe), MASKS)
    claim = claims.take(home, at, replace(Owner.current(), job=job, machine="another"))
    assert claim is not None
    os.utime(claim.path, (1e9, 1e9))
    return claim.path, checkpoint(home, method)


@pytest.mark.slow
def test_claims_and_checkpoints_of_dead_workers_are_removed_for_finished_cells(home: Path) -> None:
    claim, left = finished(home, "random", "77")
    alive, kept = finished(home, "magnitude", "78")
    os.utime(alive, (time.time(), time.time()))
    unfinished = checkpoint(home, "snip")
    assert sweep(home, "random", "magnitude", "snip")[0] == 0
    assert (claim.exists(), left.exists()) == (False, False)
    assert alive.exists() and kept.exists() and unfinished.exists()


@pytest.mark.slow
def test_checkpoints_of_cells_that_run_again_are_kept(home: Path) -> None:
    _, left = finished(home, "random", "77")
    assert sweep(home, "random", redo=True)[0] == 0 and not left.exists()
    left = checkpoint(home, "random")
    assert sweep(home, "random")[0] == 0 and left.exists(), "its task is in the queue"


@pytest.mark.parametrize("name", ["acc%A", "100%", "back\\slash", "new\nline", "tab\t", "bell\a", "\udcff"])
def test_a_results_folder_that_sbatch_would_misread_is_refused(home: Path, name: str) -> None:
    with pytest.raises(PaiBenchError, match="SLURM cannot write the output of jobs below") as caught:
        sweep(home, "random", root=home / name)
    assert "--results" in caught.value.remedy and str(caught.value).isprintable() is False  # two lines
    assert all(line.isprintable() for line in str(caught.value).splitlines()) and not (home / name).exists()


@pytest.mark.parametrize("name", ["with space", "quote'", 'double"', "ünïcødé", "dollar$(x)", "semi;colon"])
def test_other_special_characters_in_a_results_folder_are_accepted(home: Path, name: str) -> None:
    sbatch.check_folder(home / name)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        *(
            (f"time={time}", ["between a minute and 365 days"])
            for time in ("-5", "0", "0h", "1e9", "366d", "nan", "0:00")
        ),
        ("options.dep=afterany:1", ["short for dependency", "whole name"]),
        ("options.comm=x", ["short for comment"]),
        ("options.arr=1-9", ["short for array"]),
        ("options.part=x", ["short for partition"]),
        ("options.o=x", ["not the long name"]),
        ("options.--nice=5", ["not the long name", "without dashes"]),
        ("options.a b=5", ["not the long name"]),
        ("options.test-only=true", ["set by pai-bench itself"]),
        ("options.wait=true", ["set by pai-bench itself"]),
        ('options.mail-user="a\\nb"', ["control character"]),
        ('comment="a\\nb"', ["comment", "control character"]),
        ("signal_seconds=70000", ["65535 or less"]),
    ],
)
def test_values_that_sbatch_would_misread_are_refused(setting: str, words: list[str]) -> None:
    with pytest.raises(PaiBenchError) as caught:
        profiles.load("cpu", (setting,))
    assert all(word in str(caught.value) for word in ["--slurm", *words])


def test_long_limits_and_full_option_names_are_accepted() -> None:
    profile = profiles.load("cpu", ("time=365d", "options.mail-type=END", "options.time-min=5", "options.nice=5"))
    assert profile.time == profiles.LONGEST_MINUTES and len(profile.options) == 3
    assert profiles.load("cpu", ("time=0.2",)).time == 1


def test_a_refusal_is_printed_once(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PaiBenchError, match=r"^SLURM refuses the jobs: Invalid account or account/partition\n"):
        sweep(home, "random", refuses_from=0)
    printed = capfd.readouterr()
    assert "Invalid account" not in printed.out + printed.err
