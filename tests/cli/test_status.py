"""Tests of status and logs on synthetic results folders, without training and without torch."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError
from pai_bench.results import ResultKey
from pai_bench.sweep.execution import claims, eta
from pai_bench.sweep.monitoring import logs, status, status_text
from pai_bench.sweep.monitoring.find_cell import find
from pai_bench.sweep.monitoring.status import collect
from pai_bench.sweep.planning.expected_cells import expected, slug
from pai_bench.sweep.slurm.in_flight import InFlight, Task
from pai_bench.sweep.slurm.pending_reasons import explain
from tests.cli.program import pai_bench
from tests.disk import Disk
from tests.unit.test_results import result

FINGERPRINT = result().fingerprint
OTHER = "f" * 16
DENSE = Cell("dense", "digits", "conv8", 0.0, 0)
CELLS = [DENSE, *(Cell(method, "digits", "conv8", 0.9, seed) for method in ("snip", "erk") for seed in range(4))]


def plan(root: Path, name: str = "1", cells: list[Cell] = CELLS, fingerprint: str = FINGERPRINT) -> None:
    lines = [{**vars(cell), "recipe": "quick", "fingerprint": fingerprint} for cell in cells]
    results.write_plan(root, f"{name}.json", {"created": name, "cells": lines})


def put(root: Path, cell: Cell, **changes: object) -> None:
    results.write(root, result(**{**vars(cell), **changes}), {})


def fail(root: Path, cell: Cell, cause: str) -> None:
    results.write_failure(
        root, ResultKey(cell, "quick", FINGERPRINT), cause=cause, traceback=f"Traceback of {cell.seed}\n{cause}"
    )


def name(cell: Cell, fingerprint: str = FINGERPRINT) -> str:
    return ResultKey(cell, "quick", fingerprint).name


def claim(root: Path, cell: Cell, **changes: object) -> claims.Claim:
    taken = claims.take(root, ResultKey(cell, "quick", FINGERPRINT), replace(claims.Owner.current(), **changes))  # type: ignore[arg-type]
    assert taken is not None
    return taken


def task(job: str, state: str, reason: str, *cells: Cell) -> Task:
    return Task(job, state, reason, "n1", "sweep", "c001", tuple(map(name, cells)))


def states(found: status.Status) -> dict[Cell, str]:
    return {cell.cell: cell.state for cell in found.cells}


def test_every_cell_has_one_state(tmp_path: Path) -> None:
    plan(tmp_path)
    snip, erk = CELLS[1:5], CELLS[5:]
    put(tmp_path, DENSE, costs={"train_seconds": 4.0, "score_seconds": 1.0})
    put(tmp_path, snip[0], status="collapsed", costs={"train_seconds": 8.0, "score_seconds": None})
    fail(tmp_path, snip[1], "RuntimeError: at 0x7f33: 12 of 30")
    fail(tmp_path, snip[2], "RuntimeError: at 0x7f34: 13 of 30")
    fail(tmp_path, snip[0], "RuntimeError: before it worked")
    put(tmp_path, snip[3], fingerprint=OTHER)
    flight = InFlight((task("7_1", "PENDING", "Priority", erk[1], DENSE),), jobs={})
    with claim(tmp_path, erk[0]) as mine:
        mine.beat(phase="training", epoch=3, epochs=10, seconds_per_epoch=2.0)
        mine._write()
        found = collect(tmp_path, flight)
    assert states(found) == {
        DENSE: "done", snip[0]: "done", snip[1]: "failed", snip[2]: "failed", snip[3]: "stale",
        erk[0]: "running", erk[1]: "queued", erk[2]: "missing", erk[3]: "missing",
    }  # fmt: skip
    assert found.counts() == {
        "done": 2, "running": 1, "queued": 1, "failed": 2, "stale": 1, "missing": 2, "unknown": 0
    }  # fmt: skip
    (failure,) = found.failures
    assert (failure.count, failure.example) == (2, snip[1])
    (running,) = found.running
    assert (running.phase, running.epoch, running.epochs, running.seconds_left) == ("training", 3, 10, 14.0)
    # One worker; 14 s of its cell, and four cells that are still to do: queued, stale, two missing.
    assert found.seconds_left == pytest.approx(14 + 4 * 6.5)
    assert [cell.cell for cell in found.cells if cell.flag == "collapsed"] == [snip[0]]
    assert json.loads(json.dumps(found.as_dict()))["counts"]["failed"] == 2


def test_a_filter_selects_cells_of_status_and_failed_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tmp_path)
    put(tmp_path, CELLS[1], n_kept=1000, tied_at_cut=900)
    for cell in (CELLS[2], CELLS[5]):
        fail(tmp_path, cell, f"RuntimeError in {cell.method}")
    waiting = [task("7_1", "PENDING", "Priority", CELLS[3]), task("7_2", "PENDING", "JobHeldUser", CELLS[6])]
    flight = InFlight(tuple(waiting), jobs={})
    found = collect(tmp_path, flight, "method=snip,seed<3")
    assert states(found) == {CELLS[1]: "done", CELLS[2]: "failed", CELLS[3]: "queued"}
    assert [failure.cause for failure in found.failures] == ["RuntimeError in snip"]
    assert [each.job for each in found.waiting] == ["7_1"] and any("tied" in note for note in found.notes)
    other = collect(tmp_path, flight, "method=erk")
    assert len(other.cells) == 4 and not any("tied" in note for note in other.notes)
    with pytest.raises(PaiBenchError, match="leaves no cell of the results folder") as refused:
        collect(tmp_path, flight, "method=snap")
    assert "did you mean snip" in refused.value.remedy

    said: list[str] = []
    options = {"every": False, "follow": False, "tail": None, "say": said.append}
    logs.run(tmp_path, None, "method=erk", failed=True, **options)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert "RuntimeError in erk" in out and "RuntimeError in snip" not in out
    logs.run(tmp_path, None, "seed=3", failed=True, **options)  # type: ignore[arg-type]
    assert said[-1] == f"no cell in {tmp_path} has failed" and not capsys.readouterr().out
    with pytest.raises(PaiBenchError, match="--filter requires --failed"):
        logs.run(tmp_path, "snip", "method=erk", failed=False, **options)  # type: ignore[arg-type]


def test_status_counts_the_newest_plan_of_a_variant_and_unplanned_results(tmp_path: Path) -> None:
    put(tmp_path, CELLS[1])
    assert states(collect(tmp_path)) == {CELLS[1]: "done"}
    plan(tmp_path, "1", CELLS[1:3])
    plan(tmp_path, "2", CELLS[2:3], OTHER)
    assert states(collect(tmp_path)) == {CELLS[1]: "stale", CELLS[2]: "missing"}


def test_cells_are_unknown_when_the_controller_does_not_respond(tmp_path: Path) -> None:
    plan(tmp_path)
    found = collect(tmp_path, InFlight(silent="timed out", unknown=frozenset({name(CELLS[1])})))
    assert states(found)[CELLS[1]] == "unknown" and states(found)[CELLS[2]] == "missing"
    assert "timed out" in found.notes[0] and "not lost" in found.notes[0]


def test_status_notes_interrupted_cells_and_duplicate_runs(tmp_path: Path) -> None:
    plan(tmp_path)
    process = subprocess.Popen(["true"])
    process.wait()
    claim(tmp_path, CELLS[1], pid=process.pid, ticks=1)
    for owner, accuracy in (("a", 0.75), ("b", 0.75), ("c", 0.5)):
        whole = result(**{**vars(CELLS[2]), "accuracy": accuracy})
        results.write(tmp_path, whole, {}, owner=owner)
    found = collect(tmp_path)
    assert states(found)[CELLS[1]] == "missing" and found.running == () and found.seconds_left is None
    assert any("1 cell was interrupted" in note for note in found.notes)
    assert any("2 times a cell was run twice" in note and "1 of them" in note for note in found.notes)


def test_the_time_left_is_the_remaining_work_divided_by_the_running_cells() -> None:
    kind, other = ("digits", "conv8", "quick"), ("digits", "conv8", "slow")
    begun = eta.RunningCell(kind, 30.0, 0, None, None)
    half = eta.RunningCell(kind, 50.0, 5, 10, 10.0)
    assert eta.seconds_left([], [kind], {kind: 9.0}) is None
    assert eta.seconds_left([begun], [kind], {}) is None
    assert eta.seconds_left([half], [], {}) == 50
    assert eta.seconds_left([half], [kind, other], {}) == 50 + 2 * 100
    assert eta.seconds_left([half, begun], [kind] * 4, {kind: 80.0}) == (50 + 50 + 4 * 80) / 2
    assert eta.seconds_left([half, begun], [], {kind: 90.0}) == 60


def test_a_damaged_result_does_not_count(tmp_path: Path) -> None:
    plan(tmp_path)
    put(tmp_path, DENSE)
    place = ResultKey(DENSE, "quick", FINGERPRINT).path(tmp_path)
    place.write_text(place.read_text()[:100])
    found = collect(tmp_path)
    assert states(found)[DENSE] == "missing" and "1 result files are corrupt" in found.notes[0]


def test_unreadable_results_are_unknown_and_not_missing(tmp_path: Path, disk: Disk) -> None:
    planned, unplanned = CELLS[1], CELLS[5]
    plan(tmp_path, cells=[DENSE, planned])
    for cell in (DENSE, planned, unplanned):
        put(tmp_path, cell)
    disk.refuse("*/runs/*/*/[se]*/*.json", errno.EIO)
    found = collect(tmp_path)
    assert states(found) == {DENSE: "done", planned: "unknown", unplanned: "unknown"} and not found.ended()
    assert "2 paths" in found.notes[0] and "Input/output error" in found.notes[0]


def test_an_unreadable_claim_does_not_stop_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(tmp_path)
    disk = Disk(monkeypatch, "open")
    with claim(tmp_path, CELLS[1]), claim(tmp_path, CELLS[2]):
        disk.refuse(f"*/{CELLS[1].method}/s0.9-seed{CELLS[1].seed}-*.claim", errno.EIO)
        found = collect(tmp_path)
        disk.heal()
    assert (states(found)[CELLS[1]], states(found)[CELLS[2]]) == ("unknown", "running")
    assert "its claim cannot be read (Input/output error)" in status_text.as_text(found)


def test_pending_reasons_are_explained_and_stuck_tasks_come_first(tmp_path: Path) -> None:
    plan(tmp_path)
    tasks = [task(f"7_{i}", "PENDING", "Priority", cell) for i, cell in enumerate(CELLS[1:4])]
    tasks.append(task("7_9", "PENDING", "launch failed requeued held", CELLS[5]))
    tasks += [task("7_10", "RUNNING", "None", CELLS[6]), task("7_11", "COMPLETING", "None", CELLS[7])]
    found = collect(tmp_path, InFlight(tuple(tasks), jobs={}))
    assert (states(found)[CELLS[6]], states(found)[CELLS[7]]) == ("queued", "missing")
    held, behind = found.waiting
    assert held.remedy is not None and "scontrol release 7_9" in held.remedy
    assert (behind.words, behind.n_tasks, behind.n_cells) == ("waiting behind jobs of higher priority", 3, 3)


@pytest.mark.parametrize(
    ("reason", "words", "stuck"),
    [
        ("Priority", "higher priority", False),
        ("(Resources)", "waiting for free", False),
        ("QOSMaxJobsPerUserLimit", "no more of your jobs", False),
        ("AssocGrpGRES", "all the GPUs", False),
        ("QOSMaxGRESPerUser", "all the GPUs", False),
        ("AssocGrpGRESMinutes", "used up", True),
        ("AssocMaxJobsLimit", "no more jobs at once", False),
        ("QOSMaxWallDurationPerJobLimit", "more time", True),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "down, drained or reserved", False),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "down", False),
        ("BeginTime", "earliest start", False),
        ("JobHeldUser", "held by its user", True),
        ("JobHeldAdmin", "held by an administrator", True),
        ("DependencyNeverSatisfied", "a job that failed", True),
        ("PartitionTimeLimit", "more time than the partition", True),
        ("JobArrayTaskLimit", "requested number of tasks", False),
        ("launch failed requeued held", "requeued and held", True),
        ("SomethingNew", "SLURM's reason: SomethingNew", False),
    ],
)
def test_pending_reasons_are_described(reason: str, words: str, stuck: bool) -> None:
    assert words in explain(reason).words and explain(reason).stuck == stuck


def test_a_cell_is_found_by_fields_path_or_fragment(tmp_path: Path) -> None:
    plan(tmp_path)
    put(tmp_path, CELLS[1])
    cells = expected(results.plans(tmp_path), results.names(tmp_path / "runs", ".json"))
    (target,) = (cell for cell in cells if cell.cell == CELLS[1])
    place = ResultKey(CELLS[1], "quick", FINGERPRINT).path(tmp_path)
    log = ResultKey(CELLS[1], "quick", FINGERPRINT).log_path(tmp_path)
    texts = [slug(CELLS[1]), str(CELLS[1]), str(place), str(log), "snip/0.9/seed0", target.name, "snip/s0.9-seed0"]
    assert {find(text, cells, tmp_path) for text in texts} == {target}
    assert find("dense", cells, tmp_path).cell == DENSE
    with pytest.raises(PaiBenchError, match=r"4 cells match 'snip'\nchoose one: snip/digits/conv8/0.9/0  snip"):
        find("snip", cells, tmp_path)
    with pytest.raises(PaiBenchError, match=r"did you mean snip/digits/conv8/0.9/0"):
        find("snipp/digits/conv8/0.9/0", cells, tmp_path)


def test_no_result_of_ten_thousand_cells_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell(f"m{i % 10}", "digits", "conv8", (0.5, 0.9, 0.95, 0.98)[i // 10 % 4], i // 40) for i in range(10_000)]
    plan(tmp_path, cells=cells)
    plain = asdict(result())
    for cell in cells[:8000]:
        place = ResultKey(cell, "quick", FINGERPRINT).path(tmp_path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(plain | vars(cell)))
    tasks = tuple(task(f"7_{i}", "PENDING", "Priority", cell) for i, cell in enumerate(cells[9000:]))
    collect(tmp_path)  # the first time, results are read
    monkeypatch.delattr(results, "read_plain")
    found = collect(tmp_path, InFlight(tasks, jobs={}))
    text = status_text.as_text(found)
    assert [found.counts()[state] for state in ("done", "queued", "missing")] == [8000, 1000, 1000]
    assert "1000 tasks (1000 cells): waiting behind jobs of higher priority [Priority]" in text


def test_status_exits_with_3_when_cells_are_missing(tmp_path: Path) -> None:
    root = tmp_path / "results"
    none = pai_bench(tmp_path, "status")
    assert none.returncode == 2 and "there is no plan and no result" in none.stderr
    plan(root)
    put(root, DENSE)
    fail(root, CELLS[1], "OutOfMemoryError: [x] of 7 GiB")
    fail(root, CELLS[2], "OutOfMemoryError: [x] of 9 GiB")
    shown = pai_bench(tmp_path, "status", "--fail-on-missing")
    assert shown.returncode == 3, shown.stderr
    assert "9 cells: 1 done, 2 failed, 6 missing" in shown.stdout
    assert re.search(r"method +0 +0.9\ndense +1/1\nsnip +0/4 2f\n", shown.stdout)
    assert "2 x OutOfMemoryError: [x] of 7 GiB" in shown.stdout and "\x1b" not in shown.stdout
    assert "pai-bench logs snip/digits/conv8/0.9/0" in shown.stdout
    plain = pai_bench(tmp_path, "status", "--json")
    assert plain.returncode == 0 and json.loads(plain.stdout)["counts"]["failed"] == 2
    for cell in CELLS[3:]:
        put(root, cell)
    watched = pai_bench(tmp_path, "status", "--watch", "1")
    assert watched.returncode == 0 and watched.stdout.endswith("9 cells: 7 done, 2 failed\n")


def test_logs_show_the_log_and_the_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "results"
    plan(root)
    fail(root, CELLS[1], "OutOfMemoryError: 7 GiB")
    fail(root, CELLS[2], "OutOfMemoryError: 9 GiB")
    fail(root, CELLS[3], "ValueError: no")
    for cell in CELLS[1:5]:
        log = ResultKey(cell, "quick", FINGERPRINT).log_path(root)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"first of {cell.seed}\nsecond of {cell.seed}\n")
    shown = pai_bench(tmp_path, "logs", "snip/digits/conv8/0.9/0", "--tail", "1")
    assert shown.returncode == 0, shown.stderr
    assert "second of 0\nTraceback of 0\nOutOfMemoryError: 7 GiB\n" in shown.stdout and "first" not in shown.stdout

    def logs_of(text: str | None, **options: bool) -> str:
        given = {"failed": False, "every": False, "follow": False, **options}
        logs.run(root, text, tail=None, say=lambda _: None, **given)
        return capsys.readouterr().out

    causes = logs_of(None, failed=True)
    assert causes.count("==> ") == 2 and "==> snip/digits/conv8/0.9/0, one of 2 that failed" in causes
    assert logs_of(None, failed=True, every=True).count("==> ") == 3
    assert logs_of("snip/digits/conv8/0.9/3", follow=True).endswith("second of 3\n")  # nobody is at work on it
    assert logs_of("snip/digits/conv8/0.9/2", follow=True).endswith("second of 2\n")
    for text, options in (
        (None, {}),
        ("erk/0", {}),
        (None, {"failed": True, "follow": True}),
        ("snip/3", {"every": True}),
        ("nix", {}),
    ):
        with pytest.raises(PaiBenchError):
            logs_of(text, **options)


@pytest.mark.parametrize("module", ["command", "logs", "cancel"])
def test_monitoring_commands_do_not_import_torch(module: str) -> None:
    name = f"pai_bench.sweep.monitoring.{module}"
    check = f"import {name}, sys; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
