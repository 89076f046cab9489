"""Claims: one of many processes wins a cell, dead owners lose it, and live ones keep it, also if clocks differ."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.results import ResultKey
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.claims import Owner, survey, take
from tests.disk import Disk

KEY = ResultKey(Cell("snip", "digits", "conv8", 0.9, 3), "quick", "0123456789abcdef")
DEAD_PID = {"pid": 2**22 + 1}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "WATCHED_SECONDS", 0.05)


def owner(**changes: Any) -> Owner:
    return replace(Owner.current(), **{"job": None, "restart": 0, **changes})


def hold(root: Path, key: ResultKey = KEY, aged: float = 0.0, **changes: Any) -> Path:
    """A claim and a heartbeat of somebody else, so many seconds old; returns the claim's path."""
    claim = take(root, key, owner(id="other", **changes))
    assert claim is not None
    claim._write()
    for path in (claim.path, results.beat_path(claim.path, "other")):
        then = path.stat().st_mtime - aged
        os.utime(path, (then, then))
    return claim.path


def test_a_claim_is_taken_listed_and_released(tmp_path: Path) -> None:
    mine = owner()
    claim = take(tmp_path, KEY, mine)
    assert claim is not None
    with claim:
        claim.beat(phase="training", epoch=3, epochs=10)
        assert take(tmp_path, KEY, owner()) is None
        (held,) = survey(tmp_path)
        assert held.key == KEY
        assert (held.owner, held.verdict, held.phase) == (mine, "alive", None)
        claim._write()
        assert (survey(tmp_path)[0].phase, survey(tmp_path)[0].epoch) == ("training", 3)
        assert not claim.lost()
    assert survey(tmp_path) == []
    assert not [path for path in results.claims_folder(tmp_path).rglob("*") if path.is_file()]


FAR = {"machine": "elsewhere"}
SLURM = {**FAR, "job": "7_1"}


@pytest.mark.parametrize(
    ("what", "aged", "jobs", "verdict"),
    [
        ({}, 7200, None, "alive"),  # its process lives, whatever the clock says
        (DEAD_PID, 0, None, "dead"),
        ({"ticks": 1}, 0, None, "dead"),  # the number was given to another process
        (FAR, 60, None, "alive"),
        (FAR, 130, None, "dead"),
        (FAR, -7200, None, "unknown"),  # the clock was set back
        (SLURM, 60, None, "alive"),
        (SLURM, 130, None, "unknown"),  # the controller does not answer
        (SLURM, 130, {}, "dead"),
        (SLURM, 130, {"7_1": "RUNNING"}, "alive"),
        (SLURM, 130, {"7_1": "PENDING"}, "alive"),
        (SLURM, 0, {"7_1": "NODE_FAIL"}, "dead"),
        (SLURM, 0, {"7_1": "CANCELLED by 0"}, "dead"),
        ({**DEAD_PID, "job": "7"}, 0, None, "dead"),
    ],
)
def test_liveness_verdicts_on_owners(
    tmp_path: Path, what: dict[str, Any], aged: float, jobs: dict[str, str] | None, verdict: str
) -> None:
    hold(tmp_path, aged=aged, **what)
    (held,) = survey(tmp_path, jobs)
    assert held.verdict == verdict
    assert (take(tmp_path, KEY, owner(), jobs) is None) == (verdict == "alive")


def test_a_requeued_job_takes_its_claims_back_at_once(tmp_path: Path) -> None:
    hold(tmp_path, **SLURM)
    again = owner()
    assert take(tmp_path, KEY, replace(again, job="7_2", restart=1)) is None
    assert take(tmp_path, KEY, replace(again, job="7_1", restart=1)) is not None


def test_a_heartbeat_that_changes_while_watched_keeps_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = hold(tmp_path, aged=7200, **FAR)
    monkeypatch.setattr(claims.time, "sleep", lambda _: os.utime(results.beat_path(place, "other")))
    assert survey(tmp_path)[0].verdict == "dead"
    assert take(tmp_path, KEY, owner()) is None


def test_the_loser_of_a_claim_detects_it_and_leaves_the_claim(tmp_path: Path) -> None:
    zombie = take(tmp_path, KEY, owner(**DEAD_PID))
    assert zombie is not None
    with zombie:
        winner = take(tmp_path, KEY, owner())
        assert winner is not None and not winner.lost()
        assert zombie.lost()
    assert winner.path.exists() and take(tmp_path, KEY, owner()) is None


@pytest.mark.parametrize("text", [b"", b"{}", b'{"method": '])
def test_an_unreadable_claim_is_not_taken_over_at_once(tmp_path: Path, text: bytes) -> None:
    place = hold(tmp_path)
    place.write_bytes(text)
    assert survey(tmp_path) == [] and take(tmp_path, KEY, owner()) is None
    os.utime(place, (place.stat().st_mtime - 130,) * 2)
    assert take(tmp_path, KEY, owner()) is not None


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOENT], ids=errno.errorcode.get)
def test_a_claim_with_a_read_error_is_gone_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    place, disk = hold(tmp_path), Disk(monkeypatch, "open")
    other = hold(tmp_path, replace(KEY, cell=replace(KEY.cell, seed=4)))
    disk.refuse(f"*/{place.name}", code, times=1)
    assert [held.verdict for held in survey(tmp_path)] == ["alive", "alive"]
    disk.refuse(f"*/{place.name}", code)
    found = {held.key.name: held for held in survey(tmp_path)}
    assert found.pop(results.name_of(other.with_suffix(".json"))).verdict == "alive"
    if code in (errno.ESTALE, errno.ENOENT):
        assert not found
    else:
        (held,) = found.values()
        assert (held.key.cell, held.key.recipe, held.verdict) == (KEY.cell, KEY.recipe, "unknown")
        assert not held.owner.runs_here() and os.strerror(code) in held.owner.host


def test_watching_a_claim_sends_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(tmp_path, aged=7200, **FAR)
    naps: list[float] = []
    signs: list[int] = []
    monkeypatch.setattr(claims, "WATCHED_SECONDS", 25.0)
    monkeypatch.setattr(claims.time, "sleep", naps.append)
    monkeypatch.setattr(claims.time, "monotonic", lambda: float(len(naps)))
    assert take(tmp_path, KEY, owner(), tick=lambda: signs.append(1)) is not None
    assert len(signs) == len(naps) >= 25 and max(naps) <= 1


def _race(root: str, start: Any, wins: Any, rounds: int) -> None:
    for number in range(rounds):
        start.wait()
        key = replace(KEY, cell=replace(KEY.cell, seed=number))
        claim = take(Path(root), key, Owner.current())
        start.wait()
        if claim is not None and not claim.lost():
            with wins.get_lock():
                wins[number] += 1


@pytest.mark.slow
@pytest.mark.parametrize("dead", [False, True], ids=["free", "of a dead owner"])
def test_one_of_many_processes_racing_for_a_claim_wins(tmp_path: Path, dead: bool) -> None:
    n, rounds = 6, 40
    context = multiprocessing.get_context("spawn")
    start, wins = context.Barrier(n), context.Array("i", rounds)
    for number in range(rounds if dead else 0):
        hold(tmp_path, replace(KEY, cell=replace(KEY.cell, seed=number)), **DEAD_PID)
    racers = [context.Process(target=_race, args=(str(tmp_path), start, wins, rounds)) for _ in range(n)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert list(wins) == [1] * rounds
    owners = [json.loads(path.read_text())["owner"]["id"] for path in results.claims_folder(tmp_path).rglob("*.claim")]
    assert len(owners) == rounds and "other" not in owners
