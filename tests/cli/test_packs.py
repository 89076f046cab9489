"""A sweep whose worker trains several cells at a time: the same results, also when it is killed in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.core.atomic import as_json
from pai_bench.experiment.runner import CellRunner, Run
from tests.cli.program import alive, children, pai_bench, recipe, results, started, sweep, wait_for
from tests.cli.test_faults import trained

EPOCHS = 24
SAME = ("accuracy", "curve", "mask_hash", "init_hash", "fingerprint", "effective_sparsity", "status")


def owner(claim: Path) -> int:
    return int(json.loads(claim.read_text())["owner"]["pid"])


def test_a_killed_pack_gives_the_same_results_as_single_cells(tmp_path: Path) -> None:
    grid = sweep(tmp_path, "--workers", "1", methods="snip", seeds="0", epochs=EPOCHS)
    packed = [*grid, "--pack", "3", "--checkpoint-every", "0.2"]
    state = tmp_path / "results" / "state"

    def reached(attempt: int) -> list[bool]:
        """Return for each cell True if its attempt has made progress and left a checkpoint."""
        found = []
        for log in (state / "logs" / "cells").rglob("*.log"):
            attempts = trained(log.read_text(), EPOCHS)
            folder = state / "checkpoints" / log.relative_to(state / "logs" / "cells").with_suffix("")
            found.append(len(attempts) > attempt and len(attempts[attempt]) >= 2 and any(folder.glob("*.checkpoint")))
        return found

    def claims() -> list[Path]:
        return list((state / "claims").rglob("*.claim"))

    with started(tmp_path, *packed) as process:
        wait_for(lambda: reached(0) == [True] * 3)
        assert len(claims()) == 3
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        # The faulty cell is unknown, so all of them continue one after the other.
        wait_for(lambda: any(reached(1)))
        assert len([claim for claim in claims() if alive(owner(claim))]) == 1
        (worker,) = {pid for pid in map(owner, claims()) if alive(pid)}
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):  # it ends by itself once its sweep is gone
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not alive(worker))
    again = pai_bench(tmp_path, *packed)
    assert again.returncode == 0, again.stderr
    found = results(tmp_path / "results")
    assert len(found) == 3
    runner = CellRunner(device="cpu")
    settings = recipes.load(recipe(tmp_path, EPOCHS), "digits", "conv8")
    for result in found.values():
        cell = Cell(result["method"], "digits", "conv8", result["sparsity"], 0)
        expected = json.loads(as_json(dataclasses.asdict(runner.run(Run(cell, settings)).result)))
        assert {name: result[name] for name in SAME} == {name: expected[name] for name in SAME}
    assert max(result["provenance"]["pack"] for result in found.values()) >= 2
    logs = [log.read_text() for log in (state / "logs" / "cells").rglob("*.log")]
    assert all("resumes from a checkpoint" in text for text in logs)
    assert not claims() and not list((state / "checkpoints").rglob("*.checkpoint"))
