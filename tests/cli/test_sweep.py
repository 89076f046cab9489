"""A sweep loses nothing: killed workers, a killed sweep, Ctrl-C, damaged files, failing methods."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pai_bench.analysis import command
from pai_bench.analysis.figures import Options
from pai_bench.analysis.selection import Selection
from pai_bench.cli.program import app
from pai_bench.core import method_index
from tests.cli.program import DEBUG, MOODY, alive, children, pai_bench, recipe, results, started, sweep, wait_for


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep of ten cells."""
    folder = tmp_path_factory.mktemp("done")
    run = pai_bench(folder, *sweep(folder))
    assert run.returncode == 0, run.stderr
    assert "plan: 10 cells = 0 done, 10 to run in 6 jobs" in run.stderr
    assert "10/10 done, 0 running, 0 failed" in run.stderr
    assert run.stdout == ""
    return folder


def copy(done: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", f"{done}/.", tmp_path], check=True)
    return tmp_path


def test_a_sweep_writes_one_result_per_cell(done: Path) -> None:
    found = results(done / "results")
    assert len(found) == 10
    assert {path.split("/")[1:4] == ["digits", "conv8", result["method"]] for path, result in found.items()} == {True}
    assert {(r["method"], r["sparsity"], r["seed"]) for r in found.values()} == {
        *(("dense", 0.0, seed) for seed in (0, 1)),
        *((m, s, seed) for m in ("random", "snip") for s in (0.5, 0.9) for seed in (0, 1)),
    }
    for seed in (0, 1):
        assert len({r["init_hash"] for r in found.values() if r["seed"] == seed}) == 1


def test_finished_cells_are_not_run_again(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "results" / "runs").rglob("*.json")}
    again = pai_bench(done, *sweep(done))
    assert again.returncode == 0
    assert "plan: 10 cells = 10 done, 0 to run" in again.stderr
    assert len(list((done / "results" / "plans").iterdir())) == 1, "the same plan is noted once"
    assert before == {path: path.stat().st_mtime_ns for path in (done / "results" / "runs").rglob("*.json")}


def test_only_missing_cells_are_run(done: Path, tmp_path: Path) -> None:
    folder = copy(done, tmp_path)
    lost = next((folder / "results" / "runs" / "digits" / "conv8" / "snip").glob("s0.9-seed1*.json"))
    kept = json.loads(lost.read_text())
    lost.unlink()
    run = pai_bench(folder, *sweep(folder), *DEBUG)
    assert "plan: 10 cells = 9 done, 1 to run" in run.stderr
    again = json.loads(lost.read_text())
    for key in ("accuracy", "curve", "mask_hash", "init_hash", "fingerprint", "effective_sparsity"):
        assert again[key] == kept[key]


def test_dry_run_shows_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    run = pai_bench(tmp_path, *sweep(tmp_path), "--dry-run")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert len(lines) == len({line.split(" ")[0] for line in lines}) == 3, "a line a method"
    assert any(
        line.startswith("snip · digits · conv8 · ") and ": 4 cells; sparsities 0.5,0.9; seeds 0,1" in line
        for line in lines
    )
    each = pai_bench(tmp_path, *sweep(tmp_path), "--dry-run", "-v").stdout
    assert len(each.splitlines()) == 10 and "snip · digits · conv8 · sparsity 0.9 · seed 1" in each
    assert "plan: 10 cells = 0 done, 10 to run" in run.stderr
    assert not (tmp_path / "results").exists()
    plain = pai_bench(tmp_path, *sweep(tmp_path), "--dry-run", "--json")
    content = json.loads(plain.stdout)
    assert len(content["cells"]) == 10 and content["cells"][0]["state"] == "missing"


def test_controls_are_trained_by_all_workers_and_reported(tmp_path: Path) -> None:
    grid = sweep(tmp_path, "--controls", "shuffle,reinit,invert", "--workers", "2", methods="snip", seeds="0", epochs=9)
    run = pai_bench(tmp_path, *grid)
    assert run.returncode == 0, run.stderr
    assert "dense,snip; controls shuffle,reinit,invert; sparsities 0.5,0.9; seeds 0" in run.stderr
    # Cells that share a score vector are one job; an idle worker takes the last of them.
    assert "9 to run in 2 jobs by 2 workers" in run.stderr
    found = {(r["method"], r["sparsity"]): r for r in results(tmp_path / "results").values()}
    assert len(found) == 9
    logs = (tmp_path / "results" / "state" / "logs" / "cells" / "digits" / "conv8").glob("snip*/*.log")
    owners = [log.read_text().splitlines()[0].split()[1] for log in logs]
    assert len(owners) == 8 and len(set(owners)) == 2
    for sparsity in (0.5, 0.9):
        plain, redrawn = (found[f"snip{more}", sparsity] for more in ("", ":control=reinit"))
        assert plain["mask_hash"] == redrawn["mask_hash"] and plain["init_hash"] != redrawn["init_hash"]
        assert found["snip:control=shuffle", sparsity]["mask_hash"] != plain["mask_hash"]
    report = pai_bench(tmp_path, "report")
    assert report.returncode == 0, report.stderr
    for name in ("controls.pdf", "controls.png", "controls.md", "controls.tex", "controls.csv"):
        assert f"report/{name}" in report.stdout
    assert "| SNIP (invert) " in (tmp_path / "results" / "report" / "report.md").read_text()


def test_redo_with_a_filter_runs_only_the_selected_cells(done: Path, tmp_path: Path) -> None:
    folder = copy(done, tmp_path)
    runs = folder / "results" / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.json")}
    run = pai_bench(folder, *sweep(folder), "--redo", "--filter", "method=snip,sparsity>=0.9,seed=0", *DEBUG)
    assert run.returncode == 0 and "plan: 1 cells = 0 done, 1 to run" in run.stderr
    changed = [path for path in runs.rglob("*.json") if path.stat().st_mtime_ns != before[path]]
    assert [(path.parent.name, path.name[:10]) for path in changed] == [("snip", "s0.9-seed0")]


def test_results_of_other_settings_are_kept_separately(done: Path, tmp_path: Path) -> None:
    folder = copy(done, tmp_path)
    path = Path(recipe(folder))
    text = path.read_text()
    run = ["--methods", "snip", "--sparsities", "0.9", "--seeds", "0", "--recipe", str(path)]
    path.write_text(text.replace("lr = { value = 0.1", "lr = { value = 0.2"))
    # The worker writes the planned recipe, also after the file has changed.
    changed = pai_bench(folder, "sweep", *run, "--workers", "1")
    assert "2 to run (2 of them have results of other settings or versions, which are kept)" in changed.stderr
    assert len(results(folder / "results")) == 12
    report = pai_bench(folder, "report")
    # The newest plan names new settings for dense and snip: their old results are stale, random's are not.
    assert "6 stale" in report.stderr
    table = (folder / "results" / "report" / "results.csv").read_text()
    assert table.count("\n") == 1 + 2 + 4


def test_a_damaged_result_is_set_aside_and_recomputed(done: Path, tmp_path: Path) -> None:
    folder = copy(done, tmp_path)
    victim = next((folder / "results" / "runs").rglob("snip/s0.5-seed0*.json"))
    victim.write_text(victim.read_text()[:200])
    report = pai_bench(folder, "report", "--strict")
    assert report.returncode == 3 and f"result {victim}" in report.stderr and "damaged" in report.stderr
    dry = pai_bench(folder, *sweep(folder), "--dry-run")
    assert str(victim) in dry.stderr and "9 done, 1 to run" in dry.stderr
    assert len(victim.read_text()) == 200  # a dry run touches nothing
    run = pai_bench(folder, *sweep(folder), *DEBUG)
    assert run.returncode == 0 and "set aside as" in run.stderr
    aside = list(victim.parent.glob("*.damaged-*"))
    assert len(aside) == 1 and len(aside[0].read_text()) == 200
    json.loads(victim.read_text())
    assert pai_bench(folder, "report", "--strict").returncode == 0


def test_a_killed_sweep_resumes(tmp_path: Path) -> None:
    with started(tmp_path, *sweep(tmp_path, epochs=4)) as process:
        wait_for(lambda: len(results(tmp_path / "results")) >= 2)
        workers = children(process.pid)
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(alive, workers)))
    before = results(tmp_path / "results")
    assert 2 <= len(before) < 10
    again = pai_bench(tmp_path, *sweep(tmp_path, epochs=4), *DEBUG)
    assert again.returncode == 0, again.stderr
    assert f"plan: 10 cells = {len(before)} done, {10 - len(before)} to run" in again.stderr
    after = results(tmp_path / "results")
    assert len(after) == 10 and all(after[path] == result for path, result in before.items())
    assert pai_bench(tmp_path, "report", "--strict").returncode == 0


def test_ctrl_c_stops_cleanly(tmp_path: Path) -> None:
    with started(tmp_path, *sweep(tmp_path, epochs=30)) as process:
        wait_for(lambda: (tmp_path / "results" / "plans").is_dir() and len(children(process.pid)) == 2)
        time.sleep(1)
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 130, errors
        assert "interrupted" in errors and "Traceback" not in errors
        wait_for(lambda: not any(map(alive, workers)))
    report = pai_bench(tmp_path, "report", "--strict")
    assert report.returncode in (2, 3)  # 2 when no cell had ended yet


def moody(folder: Path, how: str) -> list[str]:
    (folder / "moody.py").write_text(MOODY.replace("HOW", how))
    return sweep(folder, "--plugin", "moody.py", methods="moody,random", seeds="0")


def test_a_failed_cell_does_not_affect_others_and_needs_retry(tmp_path: Path) -> None:
    command = moody(tmp_path, "raise RuntimeError('not in the mood [x]')")
    run = pai_bench(tmp_path, *command, "--workers", "1")
    assert run.returncode == 1, run.stderr
    assert "1 x RuntimeError: not in the mood [x]" in run.stderr and "--retry failed" in run.stderr
    assert len(results(tmp_path / "results")) == 4
    (note,) = (tmp_path / "results" / "state" / "failed").rglob("*.json")
    assert "moody.py" in json.loads(note.read_text())["traceback"]
    again = pai_bench(tmp_path, *command)
    assert again.returncode == 1
    assert "plan: 5 cells = 4 done, 1 failed (use --retry failed), 0 to run" in again.stderr
    report = pai_bench(tmp_path, "report", "--strict")
    assert report.returncode == 3 and "1 failed" in report.stderr
    (tmp_path / "calm").touch()
    retry = pai_bench(tmp_path, *command, "--retry", "failed", *DEBUG)
    assert retry.returncode == 0 and "4 done, 1 to run" in retry.stderr
    assert len(results(tmp_path / "results")) == 5
    assert not list((tmp_path / "results" / "state" / "failed").rglob("*.json"))


def test_a_cell_that_kills_its_workers_fails(tmp_path: Path) -> None:
    run = pai_bench(tmp_path, *moody(tmp_path, "os._exit(7)"))
    assert run.returncode == 1, run.stderr
    assert run.stderr.count("lost: ") == 2 and "exit code 7), 3 times" in run.stderr
    assert len(results(tmp_path / "results")) == 4


def test_options_override_environment_config_file_and_profile(tmp_path: Path) -> None:
    (tmp_path / "config" / "pai-bench").mkdir(parents=True)
    profile = tmp_path / "config" / "pai-bench" / "config.toml"
    profile.write_text('seeds = "5"\nmethods = "erk"\nsparsities = [0.1]\nresults = "from-profile"\n')
    (tmp_path / "mine.toml").write_text('methods = ["snip", "random"]\nsparsities = 0.2\n', encoding="utf-8-sig")

    def plan(*arguments: str, **env: str) -> list[str]:
        run = pai_bench(tmp_path, "sweep", "--dry-run", "-v", *arguments, env=env)
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()

    tail = "· digits · conv8 · sparsity"
    assert plan() == [f"dense {tail} 0 · seed 5", f"erk {tail} 0.1 · seed 5"]
    assert plan("--config", "mine.toml")[1:] == [f"snip {tail} 0.2 · seed 5", f"random {tail} 0.2 · seed 5"]
    assert plan("-c", "mine.toml", PAI_BENCH_METHODS="grasp")[1:] == [f"grasp {tail} 0.2 · seed 5"]
    mixed = plan("-c", "mine.toml", "--methods", "snip", "--densities", "0.3", PAI_BENCH_METHODS="grasp")
    assert mixed[1:] == [f"snip {tail} 0.7 · seed 5"]


def test_equivalent_method_specs_are_one_method(tmp_path: Path) -> None:
    run = pai_bench(
        tmp_path, "sweep", "--dry-run", "--methods", "prospr:lr=0.5,steps=3,prospr,prospr:lr=1", "--seeds", "0",
        "--sparsities", "0.9",
    )  # fmt: skip
    assert [line.split(" ")[0] for line in run.stdout.splitlines()] == ["dense", "prospr", "prospr:lr=1.0"]


def test_costly_methods_are_swept_when_asked_for(tmp_path: Path) -> None:
    def planned(*arguments: str) -> set[str]:
        run = pai_bench(tmp_path, "sweep", "--dry-run", "--json", *arguments)
        return {cell["method"] for cell in json.loads(run.stdout)["cells"]}

    usual = {"dense", "erk", "grasp", "magnitude", "prospr", "random", "snip", "synflow", "uniform"}
    assert planned() == usual
    every = {name for name, entry in method_index.builtin().items() if not entry.costly}
    assert planned("--methods", "all") == every > usual | {"er", "igq", "rigl", "set", "gmp"}
    assert method_index.builtin()["ntk-sap"].costly and planned("--methods", "ntk-sap") == {"dense", "ntk-sap"}


def test_a_plan_is_shown_before_the_data_are_on_disk(tmp_path: Path) -> None:
    arguments = ("--datasets", "cifar10", "--models", "conv8", "--methods", "snip", "--seed", "0", "--sparsity", "0.9")
    run = pai_bench(tmp_path, "sweep", *arguments, "--data-dir", "nowhere", "--dry-run")
    assert run.returncode == 0 and len(run.stdout.splitlines()) == 2
    assert "cifar10 is not on disk" in run.stderr and "pai-bench data fetch cifar10" in run.stderr
    assert "cost: " in run.stderr
    refused = pai_bench(tmp_path, "sweep", *arguments, "--data-dir", "nowhere")
    assert refused.returncode == 2 and "cifar10 is not on disk" in refused.stderr


def test_alternative_option_names_are_not_config_keys(tmp_path: Path) -> None:
    (tmp_path / "both.toml").write_text(
        'seeds = "0-1"\nsparsities = [0.9]\nseed = 7\nsparsity = 0.5\nmethods = "snip"\n'
    )
    run = pai_bench(tmp_path, "sweep", "-c", "both.toml", "--dry-run", "--json")
    cells = json.loads(run.stdout)["cells"]
    assert {cell["seed"] for cell in cells} == {0, 1} and {cell["sparsity"] for cell in cells} == {0.0, 0.9}
    refused = pai_bench(tmp_path, "prune", "-c", "both.toml", "--out", "a.npz", "--json")
    assert refused.returncode == 2 and "methods is a list for sweep, and prune takes one value" in refused.stderr
    with (tmp_path / "both.toml").open("a") as file:
        file.write('method = "snip"\n')
    run = pai_bench(tmp_path, "prune", "-c", "both.toml", "--out", "a.npz", "--json")
    assert run.returncode == 0 and json.loads(run.stdout)["seed"] == 7, run.stderr


def test_a_report_with_a_sweep_file_shows_all_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.1 accepted the file of a sweep too, and its methods and filter never restricted the report."""
    given: list[Any] = []
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(command, "run", lambda *arguments: given.extend(arguments) or True)
    (tmp_path / "paper.toml").write_text('methods = "snip"\ndatasets = "digits"\nfilter = "seed=0"\nvenue = "icml"\n')
    app(["report", "-c", str(tmp_path / "paper.toml")], standalone_mode=False)
    assert Selection() in given and [options.venue for options in given if isinstance(options, Options)] == ["icml"]


def test_version_help_and_lists_are_printed(tmp_path: Path) -> None:
    assert pai_bench(tmp_path, "--version").stdout.strip()
    for words in ([], ["data"], ["config"]):
        bare = pai_bench(tmp_path, *words)
        assert bare.returncode == 0 and "Usage" in bare.stdout and not bare.stderr
    for words in ([], ["sweep"], ["report"], ["list"]):
        shown = pai_bench(tmp_path, *words, "--help")
        assert shown.returncode == 0 and "Usage" in shown.stdout
    assert pai_bench(tmp_path, "list", "methods").stdout.split()[:2] == ["after-training", "balanced"]
    assert json.loads(pai_bench(tmp_path, "list", "recipes", "--json").stdout)[0]["name"] == "force"
    assert "prospr" in pai_bench(tmp_path, "list", "methods").stdout.splitlines(), "names alone in a pipe"
    methods = {row["name"]: row for row in json.loads(pai_bench(tmp_path, "list", "methods", "-l", "--json").stdout)}
    assert methods["prospr"]["hyper-parameters"]["lr"] == 0.5 and "inner steps" in methods["prospr"]["description"]
    shown = pai_bench(tmp_path, "list", "datasets", "--long").stdout.splitlines()
    assert shown[0].split()[-3:] == ["training", "test", "verified"]
    assert any(line.split()[-2:] == ["1,437", "360"] for line in shown)
    models = {row["name"]: row for row in json.loads(pai_bench(tmp_path, "list", "models", "-l", "--json").stdout)}
    assert models["resnet20"]["parameters"] == 269_722 and all(row["description"] for row in models.values())
    recipes = json.loads(pai_bench(tmp_path, "list", "recipes", "--long", "--json").stdout)
    assert any("not a protocol of a paper" in row["description"] for row in recipes)
