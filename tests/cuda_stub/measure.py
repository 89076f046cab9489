"""Host time and launches per training step on the stub: python -m tests.cuda_stub.measure [--steps N].

One line of JSON per pack size, of ResNet-20 at batch 128 on made-up images of CIFAR-10's size, loading included.
Kernels take no time here, so that the host is all that is measured. The script also runs on earlier versions of
pai_bench.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cuda_stub.build import HERE, build, missing

IMAGES = 12_800
PACKS = (1, 2, 4)


def measure(steps: int) -> None:
    """Print the lines; in a process that runs on the stub."""
    import torch

    from pai_bench import models, recipes
    from pai_bench.datasets.loading import InMemoryDataset
    from pai_bench.training import step
    from pai_bench.training.callbacks import Callback
    from pai_bench.training.cooperative import RoundRobin
    from pai_bench.training.loop import Trained, training
    from tests.cuda_stub.device import Counts

    class Steps(Callback):
        count = 0

        def tick(self) -> None:
            self.count += 1

    # Kernels compute nothing that could agree; earlier versions have the class in another module.
    step.GraphStep._agrees = lambda *arguments: True  # type: ignore[method-assign]
    cuda = torch.device("cuda")
    x, y = torch.zeros(IMAGES, 3, 32, 32, dtype=torch.uint8, device=cuda), torch.zeros(IMAGES, dtype=torch.long)
    data = InMemoryDataset("made-up", x, y.to(cuda), x[:8], y[:8].to(cuda), 10, "", "")
    recipe = recipes.load("frankle", "cifar10", "resnet20")
    changes = {"cuda_graph": True, "batch_size": 128, "epochs": 10_000, "warmup_epochs": 0, "evaluate_every": 10_000}
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **changes))
    for size in PACKS:
        seen, pack = Steps(), RoundRobin[int, Trained](cuda)
        for seed in range(size):
            model = models.build("resnet20", 3, 32, 10).to(cuda)
            pack.add(seed, training(model, {}, data, recipe, seed, seen))
        # The first steps are captured.
        for count in (200 * size, steps * size):
            before, began, seen.count = Counts.now(), time.thread_time(), 0
            while seen.count < count:
                pack.turn()
            seconds, found = time.thread_time() - began, Counts.now().since(before)
        fields = {
            "pack": size,
            "host_us": round(1e6 * seconds / seen.count, 1),
            "launches": round(found.launches / seen.count, 2),
            "copies": round(found.copies / seen.count, 2),
            "graphs": round(found.graph_launches / seen.count, 3),
            "nodes_of_the_last_graph": found.graph_nodes,
        }
        print(json.dumps(fields), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="per cell")
    options = parser.parse_args()
    if os.environ.get("PAI_STUB_LOADED"):
        measure(options.steps)
        return
    if reason := missing():
        sys.exit(f"the stub of the CUDA libraries cannot be built: {reason}")
    with tempfile.TemporaryDirectory() as temporary:
        environment = {**os.environ, **build(Path(temporary)), "PAI_STUB_LOADED": "1"}
        command = [sys.executable, "-m", "tests.cuda_stub.measure", "--steps", str(options.steps)]
        sys.exit(subprocess.run(command, env=environment, cwd=HERE.parents[1]).returncode)


if __name__ == "__main__":
    main()
