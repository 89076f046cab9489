"""Cells an hour: as many single-thread workers as cores, against the same cells one after the other."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.experiment import process
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.training.cooperative import RoundRobin
from tests.benchmarks.conftest import Compare


def run(seed: int, epochs: int = 2) -> Run:
    """A cell of the digits demo, its training cut short."""
    quick = recipes.load("quick", "digits", "conv8")
    recipe = dataclasses.replace(quick, train=dataclasses.replace(quick.train, epochs=epochs))
    return Run(Cell("snip", "digits", "conv8", 0.9, seed), recipe)


def cell(seed: int, epochs: int) -> float | None:
    """The cell by itself."""
    process.prepare()
    return CellRunner(device="cpu").run(run(seed, epochs)).result.accuracy


@pytest.fixture
def workers(measuring: bool) -> Iterator[list[Executor]]:
    count = min(2, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 2
    context = multiprocessing.get_context("spawn")
    # One thread is enough, and starts at once, where nothing is measured.
    pools: list[Executor] = [
        ProcessPoolExecutor(1, mp_context=context) if measuring else ThreadPoolExecutor(1) for _ in range(count)
    ]
    for pool in pools if measuring else []:
        pool.submit(cell, 0, 1).result()
    yield pools
    for pool in pools:
        pool.shutdown()


def in_turns(seeds: range) -> list[float | None]:
    """The same cells in one process, a step of each at a time."""
    torch.set_num_threads(1)
    runner = CellRunner(device="cpu")
    pack: RoundRobin[int, Outcome] = RoundRobin(runner.device)
    for seed in seeds:
        pack.add(seed, runner.running(run(seed)))
    ended = pack.drain()
    return [outcome.result.accuracy for _, outcome in sorted(ended.items()) if isinstance(outcome, Outcome)]


def test_cells_in_turns_against_cells_one_after_the_other(compare: Compare, measuring: bool) -> None:
    seeds = range(2 if measuring else 1)

    def alone() -> list[float | None]:
        runner = CellRunner(device="cpu")
        return [runner.run(run(seed)).result.accuracy for seed in seeds]

    unit = "times the cells an hour of one after the other, 2 in turns in one process"
    found = compare(lambda: in_turns(seeds), alone, unit, rounds=11, inverse=True)
    assert not measuring or found == alone()


def test_cells_an_hour(compare: Compare, measuring: bool, workers: list[Executor]) -> None:
    seeds, epochs = range(len(workers) if measuring else 1), 15 if measuring else 1

    def together() -> list[float | None]:
        jobs = [worker.submit(cell, seed, epochs) for worker, seed in zip(workers, seeds, strict=False)]
        return [job.result() for job in jobs]

    def alone() -> list[float | None]:
        return [workers[0].submit(cell, seed, epochs).result() for seed in seeds]

    unit = f"times the cells an hour of one worker, {len(workers)} workers"
    found = compare(together, alone, unit, rounds=5, wall=True, inverse=True)
    assert not measuring or found == alone()
