"""tests/gpu.py: choice of steps, time limits, records, archives, and the page made from the records."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests import gpu, gpu_page
from tests.gpu import Records, Step, ordered, pack, restore, run_process, run_steps

STEPS = (
    Step("a", "first", 10, 20),
    Step("b", "second", 50, 60),
    Step("c", "third", 5, 9),
    Step("z", "rest", 20, 999, fills=True),
)


OTHERS = ("typer", "submitit", "PIL", "sklearn", "scipy", "matplotlib", "torchvision", "rich", "timm", "jinja2")
"""Packages that the Python of a GPU machine may lack; the steps that run sweeps need typer, rich and submitit then."""


@pytest.mark.slow
def test_every_step_loads_where_only_torch_pandas_and_pytest_are_installed() -> None:
    folder = Path(gpu.__file__).parent / "gpu_steps"
    names = [f"tests.gpu_steps.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    text = f"import sys; sys.modules.update(dict.fromkeys({OTHERS!r}))\n"
    text += "import importlib, pai_bench\n" + "".join(f"importlib.import_module({name!r})\n" for name in names)
    text += "pai_bench.load_results; import pai_bench.experiment.runner, pai_bench.sweep.local.worker\n"
    environment = {**os.environ, "PAI_TEST_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Clock:
    """A clock that the steps advance."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[tuple[str, float]] = []
        self.outcomes: dict[str, str] = {}

    def __call__(self) -> float:
        return self.now

    def run(self, step: Step, limit: float) -> str:
        self.ran.append((step.name, limit))
        self.now += limit if step.fills else step.expected
        return self.outcomes.get(step.name, "ok")


def run(records: Records, seconds: float, **outcomes: str) -> tuple[list[tuple[str, float]], list[str]]:
    clock = Clock()
    clock.outcomes = outcomes
    left = run_steps(STEPS, records, clock.run, seconds + gpu.RESERVE, clock)
    return clock.ran, left


def test_steps_that_fit_run_in_order_and_the_last_one_gets_the_remaining_time(tmp_path: Path) -> None:
    ran, left = run(Records(tmp_path / "r"), 100.0)
    assert ran == [("a", 20), ("b", 60), ("c", 9), ("z", 35.0)] and left == []


def test_a_rehearsal_gives_steps_more_time_within_that_of_the_run(tmp_path: Path) -> None:
    clock = Clock()
    run_steps([gpu.rehearsed(step) for step in STEPS[2:]], Records(tmp_path / "r"), clock.run, 80 + gpu.RESERVE, clock)
    assert clock.ran == [("c", 80), ("z", 75)]


def test_a_step_that_does_not_fit_is_left_to_the_next_run(tmp_path: Path) -> None:
    records = Records(tmp_path / "r")
    assert run(records, 40.0) == ([("a", 20), ("c", 9), ("z", 25.0)], ["b"])
    assert run(records, 60.0) == ([("b", 60)], [])
    assert run(records, 60.0) == ([], [])


def test_failed_steps_are_repeated_after_steps_never_tried(tmp_path: Path) -> None:
    records = Records(tmp_path / "r")
    _, left = run(records, 12.0, a="failed")
    assert left == ["a", "b", "c", "z"]
    assert [step.name for step in ordered(STEPS, records.outcomes())] == ["b", "c", "a", "z"]
    ran, left = run(records, 1000.0)
    assert [name for name, _ in ran] == ["b", "c", "a", "z"] and left == []


def test_a_record_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    records = Records(tmp_path / "r")
    records.append(step="a", what="end", outcome="ok")
    with records.path.open("a") as file:
        file.write('{"step": "b", "wha')
    assert records.read() == [{"step": "a", "what": "end", "outcome": "ok"}]


@pytest.mark.slow
def test_a_process_ends_at_its_limit_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STOP_SECONDS", 0.5)
    env, log = dict(os.environ), tmp_path / "log"
    assert run_process(["-c", "print('here')"], env, log, 60) == "ok" and log.read_text() == "here\n"
    assert run_process(["-c", "raise SystemExit(1)"], env, log, 60) == "failed"
    stubborn = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"child = subprocess.Popen(['sleep', '600']); open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    assert run_process(["-c", stubborn], env, log, 4) == "timed out"
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}/stat").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the child is alive")


@pytest.mark.slow
def test_a_step_ends_with_a_killed_script(tmp_path: Path) -> None:
    """A second run would measure beside it."""
    told = tmp_path / "child"
    step = f"import os, time; open({str(told)!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(600)"
    script = f"import os; from pathlib import Path; from tests.gpu import run_process; run_process(['-c', {step!r}],"
    script += f" dict(os.environ), Path({str(tmp_path / 'log')!r}), 600)"
    process = subprocess.Popen([sys.executable, "-c", script])
    while not (told.exists() and told.read_text().endswith(".")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    child = told.read_text()[:-1]
    for _ in range(100):
        if not Path(f"/proc/{child}/stat").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the step is alive")


def test_the_archive_keeps_results_before_checkpoints_and_within_its_limit(tmp_path: Path) -> None:
    work, generator = tmp_path / "work", random.Random(0)
    for name, size in (
        ("runs/a.json", 100),
        ("state/checkpoints/old.pt", 60_000),
        ("state/checkpoints/new.pt", 60_000),
    ):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(generator.randbytes(size))
        os.utime(work / name, (1, 2 if "new" in name else 1))
    archive = tmp_path / "out" / gpu.ARCHIVE
    archive.parent.mkdir()
    assert pack(work, archive, 100_000) == ["state/checkpoints/old.pt"]
    assert archive.stat().st_size <= 100_000
    with tarfile.open(archive) as tar:
        assert set(tar.getnames()) == {"runs/a.json", "state/checkpoints/new.pt"}
    Records(archive.parent / gpu.RECORDS).append(step="a", what="end", outcome="ok")
    out, again = tmp_path / "next", tmp_path / "again"
    out.mkdir()
    restore(archive.parent, out, again)
    assert (again / "runs/a.json").read_bytes() == (work / "runs/a.json").read_bytes()
    assert Records(out / gpu.RECORDS).outcomes() == {"a": "ok"}


def test_every_step_has_a_module_or_tests() -> None:
    for step in gpu.STEPS:
        if step.pytest:
            assert (gpu.ROOT / step.pytest[0]).is_dir()
        else:
            assert (gpu.ROOT / "tests" / "gpu_steps" / f"{step.name}.py").is_file()
        assert step.expected < step.limit


def test_the_page_is_current() -> None:
    written = gpu_page.page(Records(gpu_page.RECORDS).read())
    assert gpu_page.PAGE.read_text() == written, "run: python -m tests.gpu_page"


def test_the_page_states_ratios_and_verdicts() -> None:
    step = {"what": "step", "layout": "NHWC", "spread": 0.01, "host_seconds": 1e-4}
    records = [
        {"step": "smoke", "what": "machine", "gpu": "G", "gpu_bytes": 2**30, "driver": "1", "began": "2026-01-01T",
         "cuda": "13", "cudnn": 9, "versions": {"torch": "2"}, "commit": "c"},
        {**step, "step": "training_step", "precision": "tf32", "mechanism": "eager", "seconds": 0.005},
        {**step, "step": "training_step", "precision": "tf32", "mechanism": "captured", "seconds": 0.001},
        {"what": "pack", "precision": "tf32", "layout": "NHWC", "size": 1, "seconds": 0.001},
        {"what": "pack", "precision": "tf32", "layout": "NHWC", "size": 4, "seconds": 0.0008},
        {"what": "batch", "mechanism": "graph", "seconds": 0.00005},
        {"what": "batch", "mechanism": "loader", "seconds": 0.0002},
        *({"what": "reference cell", "method": "snip", "sparsity": 0.9, "seed": seed, "status": "ok", "accuracy": 0.9,
           "train_seconds": seconds} for seed, seconds in ((0, 100.0), (0, 60.0), (1, 40.0))),
        {"what": "evaluation", "seconds": 0.5, "host_seconds": 0.1, "images": 10_000},
        {"what": "compilation", "precision": "tf32", "plain": 1.0, "compiled": 0.8, "ratios": [1.1, 1.25, 1.3],
         "compiled_mechanism": "cuda-graph", "compile_seconds": 30.0},
        {"what": "compilation", "precision": "bf16", "plain": 1.0, "compiled": 0.5, "ratios": [2.0, 2.0, 2.0],
         "compiled_mechanism": "eager", "compile_seconds": 30.0},
        *({"what": "parity", "precision": precision, "method": "snip", "sparsity": 0.9, "seed": seed, "accuracy": found}
          for precision, seed, found in (("ieee", 0, 0.8), ("ieee", 1, 0.9), ("tf32", 0, 0.81), ("tf32", 1, 0.895))),
        {"what": "float64 choice", "gains": [1.5, 1.52, 1.49], "threshold": 1.2, "mechanism": "matrix products"},
        {"what": "mask", "method": "snip", "kept": 7, "different": 0, "seconds": 1.0, "cpu_seconds": 2.0},
    ]  # fmt: skip
    text = gpu_page.page(records)
    assert "No GPU has been measured" not in text
    for line in (
        "| captured step, tf32 NHWC | ≥ 4 × eager | 5.0 × | met |",
        "| captured step, ieee NCHW | ≥ 4 × eager | not measured |  |",
        "| best pack, tf32 | ≥ 1.5 × one cell | 1.25 × at 4 cells | **missed** |",
        "| share of the loader, tf32 | ≤ 3 % | 5.0 % | **missed** |",
        "| compiled captured step, tf32 | ≥ 1.2 × captured | 1.25 × | met |",
        "| compiled captured step, bf16 | ≥ 1.2 × captured | 2.00 × | **missed** |",
        "Compiled against plain captured step, tf32: 1.25 × (1.10 to 1.30; cuda-graph; first steps 30 s).",
        "(products if ≥ 1.2 ×), repeated: 1.50, 1.52, 1.49 ×; chosen: matrix products.",
        "Batch by the loader, without training: 200 µs.",
        "IEEE float32; 90 of these cells take 1.25 GPU-hours.",
        "| snip | 0.9 | 2 | 90.00 | 50 |",
        "| snip | 0.9 | 2 | +0.25 | -0.50 to +1.00 |",
        "Evaluation of 10,000 images: 0.500 s, of which the host is busy for 0.100 s.",
        "| masks in float64 on ResNet-20 | equal to the CPU's | 0 weights differ in 1 methods | met |",
    ):
        assert line in text, line
    hours = 90 * (160 * 391 * 0.0008 + 16 * 0.5) / 3600
    assert f"{hours:.2f} GPU-hours | met |" in text
    several = {**step, "step": "training_step", "precision": "tf32", "mechanism": "k steps", "seconds": 0.0005}
    assert "| share of the loader, tf32 | ≤ 3 % | 10.0 % | **missed** |" in gpu_page.page([*records, several])


def test_bad_steps_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        gpu.main([str(tmp_path), "--steps", "smoke,nosuch"])
    assert exited.value.code == 2 and "nosuch" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_leaves_records_log_and_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the driver with a step in place of the real ones, twice; the second run has nothing left to do."""
    package = tmp_path / "checkout" / "tests" / "gpu_steps"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "tiny.py").write_text(
        "import os, pathlib\nprint('tiny step')\npathlib.Path(os.environ['PAI_GPU_WORK'], 'result').write_text('7')\n"
    )
    monkeypatch.setattr(gpu, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(gpu, "STEPS", (Step("tiny", "a tiny step", 1, 60),))
    out, later = tmp_path / "out", tmp_path / "later"
    assert gpu.main([str(out), "--device", "cpu", "--seconds", "60"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted((gpu.ARCHIVE, gpu.LOG, gpu.RECORDS))
    assert "tiny step" in (out / gpu.LOG).read_text()
    assert gpu.main([str(later), "--device", "cpu", "--previous", str(out)]) == 0
    ends = [json.loads(line) for line in (later / gpu.RECORDS).read_text().splitlines()]
    assert [end["outcome"] for end in ends if end["what"] == "end"] == ["ok"]
    # A rehearsal on a CPU does not count as a run on a GPU.
    with pytest.raises(SystemExit) as exited:
        gpu.main([str(tmp_path / "real"), "--device", "cuda", "--previous", str(out)])
    assert exited.value.code == 2
    assert "No GPU has been measured" in gpu_page.page([*ends, {"step": "smoke", "what": "machine", "gpu": "Stub"}])
    with tarfile.open(later / gpu.ARCHIVE) as tar:
        assert tar.getnames() == ["result"]


STOPPED = """
import os, pathlib, time
from tests.gpu import Records
work, records = pathlib.Path(os.environ["PAI_GPU_WORK"]), Records(pathlib.Path(os.environ["PAI_GPU_RECORDS"]))
saved = work / "state" / "checkpoints" / "saved"
records.append(step="stopped", what="began", at=saved.read_text() if saved.exists() else None)
saved.parent.mkdir(parents=True, exist_ok=True)
saved.write_text(str(os.getpid()))
while not (work / "released").exists() and sum(r["what"] == "began" for r in records.read()) == 1:
    time.sleep(0.05)
"""
DRIVER = """
import sys
from pathlib import Path
from tests import gpu
gpu.STEPS = tuple(gpu.Step(name, name, 1, 60) for name in ("first", "stopped"))
gpu.ROOT, gpu.ARCHIVE_SECONDS = Path(sys.argv[1]), 0.1
sys.exit(gpu.main([*sys.argv[2:], "--device", "cpu", "--seconds", "120"]))
"""


@pytest.mark.slow
def test_a_run_killed_in_a_step_loses_neither_finished_steps_nor_checkpoints(tmp_path: Path) -> None:
    """After `kill -9` of the script, also where the next run has the same output folder."""
    steps = tmp_path / "tests" / "gpu_steps"
    steps.mkdir(parents=True)
    (steps.parent / "gpu.py").symlink_to(gpu.__file__)
    for folder in (steps, steps.parent):
        (folder / "__init__.py").touch()
    (steps / "first.py").write_text("import os, pathlib\npathlib.Path(os.environ['PAI_GPU_WORK'], 'kept').touch()\n")
    (steps / "stopped.py").write_text(STOPPED)
    out, work = tmp_path / "out", tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(out)]
    options = {"cwd": gpu.ROOT, "env": {**os.environ, "TMPDIR": str(work)}}
    script, step = subprocess.Popen(command, **options), None  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 300
        while step is None and time.monotonic() < deadline:
            time.sleep(0.05)
            if (out / gpu.ARCHIVE).exists():
                with tarfile.open(out / gpu.ARCHIVE) as tar:
                    if "state/checkpoints/saved" in tar.getnames():
                        step = tar.extractfile("state/checkpoints/saved").read().decode()  # type: ignore[union-attr]
    finally:
        script.kill()
        script.wait()
    next(work.iterdir()).joinpath("released").touch()
    later = subprocess.run([*command, "--previous", str(out)], **options, check=False)  # type: ignore[call-overload]
    assert step and later.returncode == 0
    records = Records(out / gpu.RECORDS).read()
    assert [r["step"] for r in records if r["what"] == "end"] == ["first", "stopped"]
    assert [r["at"] for r in records if r["what"] == "began"] == [None, step]
    with tarfile.open(out / gpu.ARCHIVE) as tar:
        assert set(tar.getnames()) >= {"kept", "state/checkpoints/saved"}
