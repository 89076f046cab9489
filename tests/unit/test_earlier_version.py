"""Tests of the results folder, the checkpoint and the report that version 0.1 wrote before its modules were moved.

The folder `earlier` was written by the version at commit c1893d0 with

    pai-bench sweep --methods snip --datasets digits --models tiny --plugin tiny.py --set init.scheme=torch
        --sparsities 0.5 --seeds 0-1 --workers 1 --checkpoint-every 0

The last cell was killed (SIGKILL) in its seventh epoch; `uninterrupted.json` is the result that the same version gave
without the interruption, and `report.json` has its report of all four cells.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pai_bench import results
from pai_bench.analysis.collect import collect
from pai_bench.analysis.statistics import summarise
from tests.cli.program import pai_bench

EARLIER = Path(__file__).parent / "earlier"
SWEEP = (
    *("sweep", "--methods", "snip", "--datasets", "digits", "--models", "tiny", "--plugin", str(EARLIER / "tiny.py")),
    *("--set", "init.scheme=torch", "--sparsities", "0.5", "--seeds", "0-1", "--where", "debug"),
)
SAME = (*("init_hash", "mask_hash", "fingerprint", "status", "n_prunable", "n_kept", "actual_sparsity"), "layers")
"""Fields of a result that do not depend on the rounding of a machine."""
SAVED_EPOCHS = 6
"""Number of complete epochs in the checkpoint."""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the sweep again on a copy of the folder; return the folder and the messages of the sweep."""
    root = tmp_path_factory.mktemp("earlier") / "results"
    shutil.copytree(EARLIER / "folder", root)
    ended = pai_bench(root.parent, *SWEEP, "--results", str(root))
    assert ended.returncode == 0, ended.stderr
    return root, ended.stderr


@pytest.mark.slow
def test_finished_cells_are_planned_as_done(resumed: tuple[Path, str]) -> None:
    assert "plan: 4 cells = 3 done, 1 to run" in resumed[1]
    for path in (EARLIER / "folder" / "runs").rglob("*.json"):
        assert (resumed[0] / path.relative_to(EARLIER / "folder")).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_interrupted_cell_resumes_from_its_checkpoint_to_the_same_result(resumed: tuple[Path, str]) -> None:
    root = resumed[0]
    expected = json.loads((EARLIER / "uninterrupted.json").read_text())
    key = results.ResultKey.of(expected)
    found = results.read_plain(key.path(root))
    assert "resumes from a checkpoint: epoch 6, step 5" in key.log_path(root).read_text()
    assert {name: found[name] for name in SAME} == {name: expected[name] for name in SAME}
    assert found["curve"][:SAVED_EPOCHS] == expected["curve"][:SAVED_EPOCHS]
    # Other processors round differently; on one machine, the two versions give the same bits.
    for epoch, other in zip(found["curve"], expected["curve"], strict=True):
        assert epoch["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert epoch["accuracy"] == pytest.approx(other["accuracy"], abs=2 / 360)
    assert (found["provenance"]["earlier_attempts"][0]["host"], len(found["curve"])) == ("vm", 12)


@pytest.mark.slow
def test_the_report_has_the_same_numbers(tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(EARLIER / "folder", root)
    expected = json.loads((EARLIER / "uninterrupted.json").read_text())
    results.ResultKey.of(expected).path(root).write_text(json.dumps(expected))
    points = summarise(collect(root)).to_dict("records")
    for point, other in zip(points, json.loads((EARLIER / "report.json").read_text()), strict=True):
        assert {name: point[name] for name in other} == {
            name: pytest.approx(value, abs=1e-9) if isinstance(value, float) else value for name, value in other.items()
        }
