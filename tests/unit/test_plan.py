"""Tests that a plan runs cells without a result, and never a cell that may have one."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pai_bench import recipes, results
from pai_bench.cells import Cell
from pai_bench.cli.program import app
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.results import store
from pai_bench.sweep import command
from pai_bench.sweep.execution.claims import Owner, take
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.local.pool import Pool
from pai_bench.sweep.local.progress import Progress
from pai_bench.sweep.planning import plan, plan_text, request
from pai_bench.sweep.planning.plan import Plan, make_plan
from tests.disk import AWAY, Disk
from tests.unit.test_execution import RUN, vars_of
from tests.unit.test_results import MASKS, result

OTHER = replace(RUN, cell=replace(RUN.cell, seed=1))


def put(root: Path) -> Path:
    return results.write(root, result(**vars_of(RUN)), MASKS, redo=True)


def state(found: Plan) -> str:
    return found.runs[0].state


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(plan.PAUSES) >= 2 and sum(plan.PAUSES) <= 1.5
    monkeypatch.setattr(plan.time, "sleep", lambda _: None)


@pytest.mark.parametrize("code", AWAY, ids=errno.errorcode.get)
def test_an_unreadable_result_stops_planning_and_is_kept(tmp_path: Path, disk: Disk, code: int) -> None:
    place = put(tmp_path)
    disk.refuse(f"*/{place.name}", code)
    with pytest.raises(PaiBenchError, match=f"{place} cannot be read: {os.strerror(code)}"):
        make_plan([RUN], tmp_path)
    make_plan([OTHER], tmp_path)  # results that the plan does not ask for do not matter
    disk.refuse(f"*/{place.name}", code, times=3)
    assert state(make_plan([RUN], tmp_path)) == "done"
    assert place.exists() and not list(place.parent.glob("*.damaged-*"))


def test_a_damaged_result_is_set_aside_and_planned_again(tmp_path: Path) -> None:
    place = put(tmp_path)
    place.write_text("{")
    seen = make_plan([RUN], tmp_path, set_aside=False)
    assert state(seen) == "missing" and place.exists() and "damaged" in seen.damaged[0]
    done = make_plan([RUN], tmp_path)
    (aside,) = place.parent.glob("*.damaged-*")
    assert state(done) == "missing" and f"set aside as {aside.name}" in done.damaged[0] and len(done.todo) == 1


@pytest.mark.parametrize("when", [1, 2], ids=["before the file is looked at", "before it is renamed"])
def test_a_damaged_result_replaced_by_another_process_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    place, true, damage = put(tmp_path), store.read_plain, []
    place.write_text("{")

    def read_plain(read: Path) -> dict[str, Any]:
        try:
            return true(read)
        except results.DamagedResult:
            damage.append(read)
            if len(damage) == when:
                put(tmp_path)
            raise

    monkeypatch.setattr(store, "read_plain", read_plain)
    found = make_plan([RUN], tmp_path)
    assert state(found) == "done" and found.damaged == () and found.todo == ()
    assert results.read(place).accuracy == 0.75 and not list(place.parent.glob("*.damaged-*"))


def test_a_cell_whose_claim_cannot_be_read_is_left_to_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = take(tmp_path, RUN.key(), Owner.current())
    assert claim is not None
    with claim:
        refusing = Disk(monkeypatch, "open")
        refusing.refuse("*.claim", errno.EIO)
        assert state(make_plan([RUN], tmp_path)) == "running"
        refusing.refuse("*.claim", errno.ESTALE)
        assert state(make_plan([RUN], tmp_path)) == "missing"
        refusing.heal()


def test_an_unreadable_failure_note_does_not_fail_its_cell(tmp_path: Path, disk: Disk) -> None:
    results.write_failure(tmp_path, RUN.key(), cause="boom", traceback="")
    progress = Progress(1, Console(quiet=True))
    pool = Pool([], RunSettings(tmp_path), progress, [RUN])
    pool._assign_work = lambda: None  # type: ignore[method-assign]
    disk.refuse("*/failed/*/*/*/*.json", errno.EIO)
    pool._check_elsewhere()
    assert list(pool._jobs) == [(RUN,)] and progress.n_failed == 0


def test_a_plan_is_newer_than_one_of_a_host_whose_clock_is_ahead(tmp_path: Path) -> None:
    stale = {**make_plan([RUN], tmp_path).runs[0].key.as_dict(), "fingerprint": "f" * 64}
    results.write_plan(tmp_path, "20990101T000000-ffffff.json", {"cells": [stale]})
    make_plan([RUN], tmp_path).write(tmp_path)
    assert results.plans(tmp_path)[-1]["cells"][0]["fingerprint"] == RUN.fingerprint()


def test_plans_announce_a_last_batch_of_one_image() -> None:
    (recipe,) = recipes.variants(
        recipes.load("quick", "digits", "conv8"), recipes.parse_settings(["train.batch_size=718"])
    )
    (line,) = request.short_batches([Run(Cell("snip", "digits", "conv8", s, 0), recipe) for s in (0.5, 0.9)])
    assert "1437 images in batches of 718 leave one" in line and "merged into the batch before it" in line
    whole = recipes.load("quick", "digits", "conv8")
    assert request.short_batches([Run(Cell("snip", "digits", "conv8", 0.5, 0), whole)]) == []


def test_plans_announce_compilations_for_few_cells() -> None:
    plain = recipes.load("quick", "digits", "conv8")
    (compiled,) = recipes.variants(plain, (("train.compile", "true"),))
    runs = [Run(Cell("snip", "digits", "conv8", 0.5, seed), compiled) for seed in range(8)]
    others = [Run(Cell("snip", "digits", "conv8", 0.5, seed), plain) for seed in range(8)]
    assert plan_text.compilations([runs]) == plan_text.compilations([others[:4], others[4:]]) == []
    assert plan_text.compilations([runs, others]) == plan_text.compilations([]) == []
    (line,) = plan_text.compilations([runs[:4] + others, runs[4:]])
    assert line.startswith("train.compile: networks are compiled 2 times for 8 cells")


@pytest.mark.slow
@pytest.mark.parametrize("n_failed, code", [(0, 0), (1, 1), (2, 1)], ids=["none", "one of two", "all"])
def test_failed_cells_set_the_exit_code_of_later_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_failed: int, code: int
) -> None:
    monkeypatch.setattr(command, "_costs", lambda *_: ("cpu", {}))
    started: list[int] = []
    monkeypatch.setattr(command.debug, "run", lambda plan, *_: started.append(len(plan.todo)) or 0)
    asked = request.Request(methods=("random",), datasets=("digits",), sparsities=(0.9,), seeds=(0,))
    for run in request.expand(request.with_masks(asked))[:n_failed]:
        results.write_failure(tmp_path, run.key(), cause="boom", traceback="")
    arguments = ["--methods", "random", "--datasets", "digits", "--sparsities", "0.9", "--seeds", "0"]
    done = CliRunner().invoke(app, ["sweep", *arguments, "--where", "debug", "--results", str(tmp_path)])
    assert done.exit_code == code, done.output
    assert started == ([2 - n_failed] if n_failed < 2 else [])
