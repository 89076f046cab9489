"""Tests of damaged files below results/: every command skips and reports them, and no finished cell is lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from pai_bench import recipes, results
from pai_bench.analysis import figures
from pai_bench.cells import Cell
from pai_bench.cli import main
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.claims import Owner
from pai_bench.sweep.monitoring import cancel, logs
from pai_bench.sweep.planning import operations
from pai_bench.sweep.slurm import in_flight, ledger, stops
from pai_bench.sweep.slurm.controller import Controller, tag
from pai_bench.sweep.slurm.ledger import Ledger
from tests.unit.test_results import MASKS, result
from tests.unit.test_slurm import spec

RECIPE = recipes.load("quick", "digits", "conv8")
RUNS = [Run(Cell("snip", "digits", "conv8", 0.9, seed), RECIPE) for seed in range(4)]
DONE = RUNS[:2]
SWEEP = ("sweep", "--methods", "snip", "--sparsities", "0.9", "--seeds", "0-3", "--recipe", "quick")
SWEEP += ("--filter", "method=snip", "--dry-run", "--json")
FLIPS = 2
"""Characters of a file to change, one at a time."""
VALUES = 2
"""Values of a file to replace, one at a time."""


def claimed(root: Path, run: Run) -> claims.Claim:
    """Write a claim of this process with one heartbeat and no thread."""
    claim = claims.take(root, run.key(), replace(Owner.current(), job="5_1"))
    assert claim is not None
    claim._write()
    return claim


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create two finished cells, a failed one, one running in a SLURM task, and every kind of record."""
    root = tmp_path_factory.mktemp("damage") / "results"
    for run in DONE:
        values = {**asdict(run.cell), "fingerprint": run.fingerprint(), "recipe": RECIPE.name}
        whole = result(**values, recipe_values=RECIPE.as_dict(), provenance={"device": "cpu"})
        results.write(root, whole, MASKS)
        results.write(root, whole, MASKS, owner="second")
    results.write_failure(root, RUNS[2].key(), cause="boom", traceback="Traceback: boom")
    claimed(root, RUNS[3])
    log = RUNS[0].key().log_path(root)
    log.parent.mkdir(parents=True)
    log.write_text("a line\n")
    lines = [run.key().as_dict() for run in RUNS]
    results.write_plan(root, "20260101T000000-aaaaaa.json", {"created": "now", "command": "x", "cells": lines})
    made = spec(root)
    made.write()
    noted = Ledger(root, made.sweep)
    noted.submitting(made, "here", asdict(Owner.current()))
    noted.submitted("c001", "5")
    stops.started(stops.place_of(made, "5_1"), 2)
    (root / "state" / "deaths").mkdir()
    results.data_copy_path(root, "digits").parent.mkdir()
    results.data_copy_path(root, "digits").write_text('{"dataset":"digits","origin":"built-in"}')
    return root


KINDS = {
    "plan": "plans/*.json",
    "result": "runs/digits/conv8/snip/*seed0*.json",
    "masks": "runs/digits/conv8/snip/*seed0*.npz",
    "failure": "state/failed/**/*.json",
    "duplicate": "state/duplicates/**/*.json",
    "claim": "state/claims/**/*.claim",
    "heartbeat": "state/claims/**/*.beat",
    "log": "state/logs/cells/**/*.log",
    "ledger": "state/sweeps/*/ledger.jsonl",
    "specification": "state/sweeps/*/c001.json",
    "stops": "state/sweeps/*/c001/*_stops.json",
    "copy": "state/data/digits.json",
}


def flips(content: bytes) -> list[bytes]:
    step = max(1, len(content) // FLIPS)
    places = range(step // 2, len(content), step)
    return [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in places]


def shapes(content: bytes) -> list[bytes]:
    found = [b"", b"\0" * 50, content[: len(content) // 2], b"[1]", b"null", b"{}", b"[" * 100_000]
    try:
        plain = json.loads(content)
    except ValueError:
        return found
    # One value after the other is of another shape.
    others = ([], {}, None, 10**400, "x", [{"a": 1}])
    found += [json.dumps({**plain, key: others[i % len(others)]}).encode() for i, key in enumerate(plain)][:VALUES]
    return found


def as_folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def as_link(place: Path) -> None:
    place.unlink()
    place.symlink_to("nowhere")


def written(content: bytes) -> Callable[[Path], None]:
    return lambda place: (place.write_bytes(content) and None) or None


def damages(place: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    content = place.read_bytes()
    for number, damaged in enumerate(flips(content)):
        yield f"flip {number}", written(damaged)
    for number, damaged in enumerate(shapes(content)):
        yield f"shape {number} {damaged[:40]!r}", written(damaged)
    yield "folder", as_folder
    yield "link", as_link


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def type_(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process, on a cluster whose queue holds the task that runs."""
    words = tag("20260101T000000-abcdef", "c001")
    answers = {
        "squeue": f"5_0|PENDING|Resources||{words}|\n5_1|RUNNING|None|n1|{words}|\n",
        "scontrol": "ClusterName = here\nMaxArraySize = 11\n",
        "scancel": "",
    }
    monkeypatch.setattr(Controller, "ask", lambda self, *command: answers[command[0]])
    monkeypatch.setattr(in_flight, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(in_flight, "installed", lambda: True)
    monkeypatch.setattr(ledger, "PAUSES", (0.0,))
    monkeypatch.setattr(figures, "draw", lambda _: figures.Figures((), ()))
    monkeypatch.setattr(operations, "calibrate", lambda *_: 1e10)
    monkeypatch.setenv("PAI_BENCH_WHERE", "local")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent / "config"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["pai-bench", *arguments, "--results", str(folder)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Said(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def whole(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """Yield the folder and restore it after each damage."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    yield copy
    restore(folder, copy)


def restore(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder, symlinks=True)


COMMANDS = {
    "status": ("status", "--json"),
    "logs": ("logs", "snip/digits/conv8/0.9/0"),
    "report": ("report", "--json"),
    "sweep": SWEEP,
    "cancel": ("cancel", "--filter", "method=snip,seed=0", "--yes"),  # finished: there is nothing to cancel
}


def done(name: str, said: Said) -> int | None:
    """Return the number of finished cells in the output of a command; None if it does not count them."""
    if name == "status":
        return int(json.loads(said.out)["counts"]["done"])
    if name == "report":
        return sum(point["n"] for point in json.loads(said.out)["points"])
    if name == "sweep":
        return sum(cell["state"] == "done" for cell in json.loads(said.out)["cells"])
    return None


@pytest.mark.slow
def test_every_command_counts_the_undamaged_folder_correctly(
    folder: Path, type_: Callable[..., Said], whole: Path
) -> None:
    for name, command in COMMANDS.items():
        said = type_(*command)
        assert said.code == 0, (name, said)
        assert done(name, said) in (None, 2), (name, said)
        assert "damaged" not in said.out.replace('"damaged": []', "") + said.err, (name, said)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_gives_a_traceback_or_loses_a_finished_cell(
    kind: str, folder: Path, type_: Callable[..., Said], whole: Path
) -> None:
    (place, *_) = sorted(folder.glob(KINDS[kind]))
    original, times = place.read_bytes(), place.stat()
    least = 1 if kind == "result" else 2
    faults = []
    for number, (label, damage) in enumerate(damages(place)):
        damage(place)
        # status reads most of the files; the other commands take turns.
        names = ("status", ("sweep", "report", "logs", "cancel")[number % 4])
        faults += [f"{label}: {name}: {fault}" for name in names if (fault := fault_of(name, type_, least))]
        if place.is_dir():
            place.rmdir()
        place.unlink(missing_ok=True)
        place.write_bytes(original)
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    # A note that names another copy of the data stops a sweep, as it must.
    if kind == "copy":
        faults = [fault for fault in faults if "data set digits changed since the plan" not in fault]
    assert not faults, "\n".join(faults)


def fault_of(name: str, type_: Callable[..., Said], least: int) -> str | None:
    """Return the fault in the behaviour of a command, or None."""
    try:
        said = type_(*COMMANDS[name])
    except Exception as error:
        return f"has raised {error!r}"
    if (
        name == "logs"
        and said.code == 2
        and any(words in said.err for words in ("error: no", "there is no", "has no log"))
    ):
        return None  # the only files of the cell were damaged
    if said.code != 0:
        return f"ends with {said.code}: {said.err}"
    if (seen := done(name, said)) is not None and seen < least:
        return f"has seen {seen} finished cells: {said.err}"
    return None


@pytest.mark.slow
def test_a_damaged_plan_and_a_damaged_heartbeat_are_named(
    folder: Path, type_: Callable[..., Said], whole: Path
) -> None:
    (plan,) = folder.glob(KINDS["plan"])
    plan.write_bytes(plan.read_bytes().replace(b'"method"', b'"methoe"', 1))
    (beat,) = folder.glob(KINDS["heartbeat"])
    beat.write_text("[1]")
    name = f"plans/{plan.name} is damaged (wrong checksum): this plan is left out"
    status = type_(*COMMANDS["status"])
    assert name in json.loads(status.out)["notes"] and beat.name in status.out
    for command in ("logs", "report", "sweep"):
        said = type_(*COMMANDS[command])
        assert name in said.err, command
    assert beat.name in type_(*COMMANDS["cancel"]).err


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    with pytest.raises(PaiBenchError, match=r"results folder .*nowhere does not exist"):
        cancel.run(place, None, True, print, lambda _: True)
    with pytest.raises(PaiBenchError, match=r"results folder .*nowhere does not exist"):
        logs.run(place, None, failed=True, every=False, follow=False, tail=None, say=print)
