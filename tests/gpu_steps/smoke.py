"""Record the machine and its versions; run one kernel and one captured graph."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Sequence

import torch

from pai_bench.experiment import provenance
from tests.gpu_steps.common import DEVICE, REAL, STUB, record, seconds


def _output(command: Sequence[str]) -> str | None:
    """Return the output of a command; None where it is not installed."""
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Run the step."""
    about: dict[str, object] = {"began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    if REAL:
        gpu = torch.cuda.get_device_properties(DEVICE)
        driver = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        about |= {
            "gpu": gpu.name,
            "gpu_bytes": gpu.total_memory,
            "multiprocessors": gpu.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _output(driver),
            "free_bytes": torch.cuda.mem_get_info(DEVICE)[0],
        }
    record("machine", python=platform.python_version(), **about, **provenance.collect())
    x = torch.ones(1024, 1024, device=DEVICE)
    record("product", seconds=seconds(lambda: x @ x), value=float((x @ x)[0, 0]))
    if REAL:
        graph, out = torch.cuda.CUDAGraph(), torch.zeros(4, device=DEVICE)
        with torch.cuda.graph(graph):
            out += 1
        graph.replay()
        graph.replay()
        assert STUB or out.tolist() == [2.0] * 4, out
        record("graph", replays=2)


if __name__ == "__main__":
    main()
