"""A worker process: reads runs as JSON lines from stdin and writes events as JSON lines to stdout.

Input line: {"id": n, "cell": {...}, "recipe": {...}}. Events: ready, room (the number of such cells that run at a
time), phase, epoch and ended with the id, and tick (a sign of life, one per second). Output printed by a method goes to
the cell's log. When stdin closes, the sweep has ended or died: each cell saves a checkpoint at its next step, and the
worker exits, after a few seconds in any case.
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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pai_bench.cells import Cell
from pai_bench.experiment import process
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.pruning import fixed_masks
from pai_bench.recipes import Recipe
from pai_bench.results import Epoch
from pai_bench.sweep.execution.attempt import AttemptOutcome, Stop, executing
from pai_bench.sweep.execution.claims import Owner
from pai_bench.sweep.execution.device_fault import EXIT_CODE, DeviceFault
from pai_bench.sweep.execution.packing import PackedRunner, Sizes
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.execution.shared import shared
from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import Task

GRACE_SECONDS = 10.0
"""Seconds that a cell may take to save a checkpoint and stop."""

TICK_SECONDS = 1.0


class Channel:
    """The connection to the sweep; it reserves the real stdout for events and redirects all other output to stderr."""

    def __init__(self) -> None:
        # File descriptors are exchanged, because compiled libraries that print do not use sys.stdout.
        self._file = os.dup(1)
        os.dup2(2, 1)
        self._ticked = 0.0

    def send(self, event: str, **fields: Any) -> None:
        """Send an event; errors are ignored, because a cell must not fail when the sweep has died."""
        with suppress(OSError):
            os.write(self._file, f"{json.dumps({'event': event, **fields})}\n".encode())

    def tick(self) -> None:
        """Send a tick event if the last one is old enough."""
        now = time.monotonic()
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            self.send("tick")


class EventSender(Callback):
    """A callback that sends the events of one run to the sweep."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number

    def phase(self, phase: str) -> None:
        self._channel.send("phase", id=self._number, phase=phase)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self._channel.send("epoch", id=self._number, epoch=epoch.epoch, epochs=epochs)

    def tick(self) -> None:
        self._channel.tick()


def _read(runs: queue.SimpleQueue[dict[str, Any] | None], stop: Stop) -> None:
    for line in sys.stdin:
        runs.put(json.loads(line))
    stop.request()
    runs.put(None)
    time.sleep(GRACE_SECONDS)
    # The sweep has ended and a cell does not stop: exit without the cleanup for which sys.exit would wait.
    os._exit(1)


def main() -> None:
    """Execute runs until stdin closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    parser.add_argument("--settings", type=RunSettings.from_json, required=True)
    options = parser.parse_args()
    settings: RunSettings = options.settings
    channel = Channel()
    # Before the sweep kills a hanging worker, it requests a traceback with this signal.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    runs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = Stop()
    # A thread reads all the time, because the end of stdin must stop cells that are training.
    threading.Thread(target=_read, args=(runs, stop), daemon=True).start()

    process.prepare()
    for plugin in settings.plugins:
        fixed_masks.load_plugin(plugin)
    owner = Owner.current()
    runner = CellRunner(settings.data_dir, options.device, *shared(settings, owner))
    sizes = Sizes(runner, settings.pack)
    numbers: dict[Run, int] = {}

    def start(run: Run, alone: Callable[[], bool]) -> Task[AttemptOutcome]:
        callback = EventSender(channel, numbers[run])
        return executing(run, settings, runner, owner, callback=callback, stop=stop, alone=alone)

    packed = PackedRunner(runner, sizes, start)
    channel.send("ready")
    going = True
    while going or packed.busy:
        try:
            with suppress(queue.Empty):
                message = runs.get(block=not packed.busy)
                going = message is not None
                if message is not None:
                    run = Run(Cell(**message["cell"]), Recipe.from_dict(message["recipe"]))
                    numbers[run] = message["id"]
                    packed.add(run)
                    channel.send("room", room=sizes.of(run))
            finished = packed.turn()
        except DeviceFault as fault:
            print(f"pai-bench: {fault}", file=sys.stderr, flush=True)
            os._exit(EXIT_CODE)  # an orderly exit would use the GPU
        for run, ended in finished:
            channel.send("room", room=sizes.of(run))
            channel.send("ended", id=numbers.pop(run), **asdict(ended))


if __name__ == "__main__":
    main()
