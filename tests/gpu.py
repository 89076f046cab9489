"""All that only a GPU can show, in pieces: python tests/gpu.py OUT [--pieces checks,bench,sweep] [--dataset cifar10].

    checks   tests/cuda: the CPU's masks, captured steps, packs, resumed cells
    bench    tests/benchmarks --device cuda: the GPU's tables; with --released also a released code beside ours
    sweep    reference results of a data set by its own recipe with captured steps, and their report

Each piece leaves its files in OUT (checks.txt, bench.txt and bench.json, results/ and report/) and is not done again
when it has ended well; the sweep goes on where it was stopped. OUT/provenance.json says on what machine all was done.
With --seconds a piece is asked to stop after so many, and the exit code is 3 until nothing is left.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pai_bench.experiment import provenance

ROOT = Path(__file__).resolve().parents[1]
PIECES = ("checks", "bench", "sweep")


def run(command: Sequence[str], log: Path, seconds: float | None) -> bool:
    """Run to its end, or interrupt it; whether it ended well. What it prints goes to the log and to the terminal."""
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
    print(f"{log}: exit code {process.returncode}\n{log.read_text()[-6000:]}", flush=True)
    return process.returncode == 0


def commands(piece: str, options: argparse.Namespace) -> list[list[str]]:
    out = options.out
    if piece == "checks":
        return [["-m", "pytest", "tests/cuda", "-q", "-rs"]]
    if piece == "bench":
        released = ["--released", options.released] if options.released else []
        enabled = ["--benchmark-enable", "--benchmark-only", f"--benchmark-json={out / 'bench.json'}"]
        columns = "--benchmark-columns=median,iqr,rounds"
        return [["-m", "pytest", "tests/benchmarks", *enabled, columns, "--device", "cuda", *released]]
    grid = ["--where", "local", "--datasets", options.dataset, "--set", "train.cuda_graph=true"]
    asked = ["--methods", options.methods, "--seeds", options.seeds]
    results = ["--results", str(out / "results")]
    return [
        ["-m", "pai_bench", "sweep", *grid, *asked, *results],
        ["-m", "pai_bench", "report", "--strict", *results, "--out", str(out / "report")],
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=lambda text: Path(text).resolve())
    parser.add_argument("--pieces", default=",".join(PIECES))
    parser.add_argument("--seconds", type=float, help="for each piece")
    parser.add_argument("--released", help="a checkout of ProsPr's released code")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--methods", default="random,magnitude,snip,grasp,synflow,prospr")
    parser.add_argument("--seeds", default="0-2")
    options = parser.parse_args()
    if unknown := set(options.pieces.split(",")) - set(PIECES):
        parser.error(f"unknown pieces {', '.join(sorted(unknown))}; known: {', '.join(PIECES)}")
    if not torch.cuda.is_available():
        parser.error("no CUDA device is here; everything else is tested by make test")
    options.out.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_properties(0)
    about = {
        "gpu": gpu.name,
        "gpu_bytes": gpu.total_memory,
        "cuda": torch.version.cuda,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **provenance.collect(),
    }
    (options.out / "provenance.json").write_text(json.dumps(about, indent=1))
    left = []
    for piece in options.pieces.split(","):
        done = options.out / f"{piece}.done"
        if done.exists():
            continue
        logs = [options.out / (f"{piece}.txt" if not number else f"{piece}-{number}.txt") for number in range(2)]
        if all(run(c, log, options.seconds) for c, log in zip(commands(piece, options), logs, strict=False)):
            done.touch()
        else:
            left.append(piece)
    print(f"left: {', '.join(left) or 'nothing'}")
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
