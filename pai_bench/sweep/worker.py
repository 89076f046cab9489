"""A worker process: takes runs as JSON lines on stdin, tells what happens as JSON lines on stdout.

A line in: {"cell": {...}, "recipe": {...}}. Lines out: ready, phase, epoch, tick (a sign of life, one a second),
ended. What a method prints goes to the cell's log. When stdin closes, the sweep has ended or is gone: the cell saves a
checkpoint at its next step, and the worker goes, after a few seconds whatever happens.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pai_bench import registry
from pai_bench.cells import Cell
from pai_bench.experiment import Laboratory, Run
from pai_bench.recipes import Recipe
from pai_bench.results import Epoch
from pai_bench.sweep.claims import Owner
from pai_bench.sweep.execution import Stop, execute
from pai_bench.watch import Watch

GRACE_SECONDS = 10.0
"""How long a cell may take to save and stop."""

TICK_SECONDS = 1.0


class Channel(Watch):
    """The way to the sweep; keeps the real stdout for itself and lets everything else that is printed go to stderr."""

    def __init__(self) -> None:
        self._file = os.dup(1)
        os.dup2(2, 1)
        self._ticked = 0.0

    def tell(self, event: str, **fields: Any) -> None:
        """Send a line; a sweep that is gone does not hear it, and its cell must not fail for that."""
        with suppress(OSError):
            os.write(self._file, f"{json.dumps({'event': event, **fields})}\n".encode())

    def phase(self, phase: str) -> None:
        self.tell("phase", phase=phase)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self.tell("epoch", epoch=epoch.epoch, epochs=epochs)

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            self.tell("tick")


def _read(runs: queue.SimpleQueue[dict[str, Any] | None], stop: Stop) -> None:
    for line in sys.stdin:
        runs.put(json.loads(line))
    stop.request()
    runs.put(None)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main() -> None:
    """Do runs until stdin closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--plugin", type=Path, action="append", default=[])
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--checkpoint-every", type=float, required=True)
    parser.add_argument("--keep-checkpoints", action="store_true")
    parser.add_argument("--disk-patience", type=float, required=True)
    options = parser.parse_args()
    channel = Channel()
    # The sweep asks a worker that hangs where it does, before it is killed.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    runs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = Stop()
    threading.Thread(target=_read, args=(runs, stop), daemon=True).start()

    torch.set_num_threads(1)
    for plugin in options.plugin:
        registry.load_plugin(plugin)
    laboratory = Laboratory(options.data_dir, options.device)
    owner = Owner.current()
    channel.tell("ready")
    while (message := runs.get()) is not None:
        ended = execute(
            Run(Cell(**message["cell"]), Recipe.from_dict(message["recipe"])),
            options.results,
            laboratory,
            owner,
            watch=channel,
            stop=stop,
            redo=options.redo,
            checkpoint_every=options.checkpoint_every,
            keep_checkpoints=options.keep_checkpoints,
            patience=options.disk_patience,
        )
        channel.tell("ended", **asdict(ended))


if __name__ == "__main__":
    main()
