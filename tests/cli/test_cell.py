"""One cell by hand: masks to a file, and from a file into the same harness."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.program import pai_bench, recipe, results


def test_masks_written_by_hand_train_as_the_method_itself_does(tmp_path: Path) -> None:
    cell = ["--dataset", "digits", "--model", "conv8", "--recipe", recipe(tmp_path)]
    made = pai_bench(tmp_path, "prune", "--method", "snip", *cell, "--sparsity", "0.95", "--out", "m.npz", "--json")
    assert made.returncode == 0, made.stderr
    summary = json.loads(made.stdout)
    assert sum(layer["kept"] for layer in summary["layers"]) == summary["kept"] == round(0.05 * summary["size"])
    methods = f"file:{tmp_path}/m.npz,snip"
    grid = ["--methods", methods, *cell, "--sparsities", "0.5,0.95", "--seeds", "0", "--where", "debug"]
    swept = pai_bench(tmp_path, "sweep", *grid)
    assert swept.returncode == 0 and "plan: 4 cells" in swept.stderr, swept.stderr
    found = {(r["method"], r["sparsity"]): r for r in results(tmp_path / "results").values()}
    given, snip = found[summary["as_method"], 0.95], found["snip", 0.95]
    assert summary["mask_hash"] == given["mask_hash"] == snip["mask_hash"]
    assert summary["init_hash"] == given["init_hash"] == snip["init_hash"]
    assert given["curve"] == snip["curve"] and given["accuracy"] == snip["accuracy"]
    trained = pai_bench(tmp_path, "train", "--masks", "m.npz", *cell, "--json")
    assert trained.returncode == 0 and "the cell already has a result" in trained.stderr
    assert json.loads(trained.stdout)["fingerprint"] == given["fingerprint"]
