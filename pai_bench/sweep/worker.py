"""A worker process: takes jobs as JSON lines on stdin, tells what happens as JSON lines on stdout.

One line in: {"cells": [...], "recipe": {...}}. Lines out: ready, start, epoch, done, failed, idle. Whatever methods
print goes to stderr. When stdin closes, the sweep is gone, and the worker goes too, in the middle of a cell if need be.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch

from pai_bench import registry, results
from pai_bench.cells import Cell
from pai_bench.experiment import Laboratory, Run
from pai_bench.recipes import Recipe
from pai_bench.results import Epoch
from pai_bench.watch import Watch


def _take_stdout() -> TextIO:
    """Keep the real stdout for the protocol, and let everything else that is printed go to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def _read(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(1)


def main() -> None:
    """Run jobs until stdin closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--plugin", type=Path, action="append", default=[])
    options = parser.parse_args()
    channel = _take_stdout()
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()

    def tell(event: str, **fields: Any) -> None:
        channel.write(json.dumps({"event": event, **fields}) + "\n")

    class Teller(Watch):
        def epoch(self, epoch: Epoch, epochs: int) -> None:
            tell("epoch", epoch=epoch.epoch, epochs=epochs)

    watch = Teller()
    torch.set_num_threads(1)
    for plugin in options.plugin:
        registry.load_plugin(plugin)
    laboratory = Laboratory(options.data_dir, options.device)
    tell("ready")
    while True:
        job = jobs.get()
        for position, fields in enumerate(job["cells"]):
            run = Run(Cell(**fields), Recipe.from_dict(job["recipe"]))
            tell("start", position=position)
            try:
                outcome = laboratory.run(run, watch)
                results.write(options.results, outcome.result, outcome.masks)
            except Exception as error:
                cause = str(error).splitlines()[0] if str(error) else "no message"
                results.write_failure(
                    options.results,
                    run.cell,
                    run.recipe.name,
                    run.fingerprint(),
                    cause=f"{type(error).__name__}: {cause}",
                    traceback=traceback.format_exc(),
                )
                tell("failed", position=position, cause=f"{type(error).__name__}: {cause}")
            else:
                results.clear_failure(options.results, run.cell, run.recipe.name, run.fingerprint())
                tell("done", position=position, accuracy=outcome.result.accuracy, status=outcome.result.status)
        tell("idle")


if __name__ == "__main__":
    main()
