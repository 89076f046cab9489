"""Processes that end because of their GPU or are killed: the cells continue in other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.program import PAI_BENCH, environment, results
from tests.cuda import patterns
from tests.cuda.test_cuda import DEVICE, of_cuda
from tests.gpu_steps.cells import workers
from tests.gpu_steps.common import PLUGINS, STUB

FRAGILE = """
import ctypes
from pathlib import Path

import torch
from torch import nn

from pai_bench import models
from pai_bench.models import register_model

MARKER = Path(__file__).with_name("fault")


class Fragile(nn.Module):
    # One process that trains this network repeats a device assert; the next one does not.
    def __init__(self, channels, size, classes):
        super().__init__()
        self.net, self.steps = models.build("conv8", channels, size, classes), 0

    def forward(self, x):
        self.steps += self.training and len(x) == 64
        if self.steps == 2 and MARKER.exists():
            MARKER.unlink()
            if STUB:
                ctypes.CDLL(None).stub_fail_after(ctypes.c_ulonglong(0))
            else:
                table = torch.zeros(10, device=x.device)
                table.index_select(0, torch.full((1,), 1000, device=x.device))
        return self.net(x)


@register_model("fragile")
def fragile(channels, size, classes):
    return Fragile(channels, size, classes)
"""


def sweep(folder: Path, *more: str) -> list[str]:
    """Return the command of a sweep with one worker."""
    grid = (*patterns.PLUGIN, *PLUGINS, "--sparsities", "0.9", "--seeds", "0")
    options = (*grid, "--workers", "1", "--results", str(folder / "results"))
    return [*PAI_BENCH, "sweep", *options, *more]


@of_cuda
@pytest.mark.control_flow
def test_a_device_assert_in_one_cell_of_a_pack_ends_the_worker_and_fails_no_cell(tmp_path: Path) -> None:
    plugin = tmp_path / "fragile.py"
    plugin.write_text(FRAGILE.replace("STUB", str(STUB)))
    (tmp_path / "fault").touch()
    cells = ("--plugin", str(plugin), "--methods", "random,magnitude", "--models", "fragile")
    command = sweep(tmp_path, *cells, "--pack", "2", "--set", "train.epochs=3")
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "fault").exists() and len(results(tmp_path / "results")) == 3
    assert not list((tmp_path / "results").rglob("failed/**/*.json"))
    logs = [path.read_text() for path in (tmp_path / "results" / "state" / "logs").rglob("*.log")]
    assert sum("cannot be used again" in log for log in logs) >= 1 or "cannot be used again" in done.stderr


@pytest.mark.control_flow
def test_cells_of_a_killed_worker_continue_in_another_one(tmp_path: Path) -> None:
    """With `kill -9`, as the kernel does when memory is short."""
    command = sweep(tmp_path, "--methods", "random,snip,magnitude", "--models", "conv8", "--set", "train.epochs=10")
    process = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.perf_counter() + 300
    while not results(tmp_path / "results") and process.poll() is None and time.perf_counter() < deadline:
        time.sleep(0.1)
    killed = workers(process.pid)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    output = process.communicate()[0].decode()
    found = results(tmp_path / "results")
    assert killed and process.returncode == 0, output
    assert len(found) == 4 and "it will be run again" in output
    devices = {result["provenance"]["device"] for result in found.values()}
    assert len(devices) == 1 and ("cpu" in devices.pop().lower()) == (DEVICE.type == "cpu")
