"""What cells will cost before they run: from cells like them that were measured, else from their arithmetic."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from pai_bench import models, results
from pai_bench.cells import MethodSpec
from pai_bench.core.precision import forward, laid_out
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.pruning import flops
from pai_bench.results.float64 import float64_slowdown
from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.planning import workload
from pai_bench.sweep.planning.plan import score_key

SAMPLE = 6
"""Results that are read of each method and recipe, spread over them; thousands need not be read for a median."""
MOST = 10 * SAMPLE
"""Results that are read of each method in all."""

GPU_FLOPS = {"H200": 12e12, "H100": 12e12, "A100": 8e12, "L40": 8e12, "4090": 8e12, "V100": 5e12, "T4": 2e12}
"""Float operations a second that the training of small networks reaches: rough figures, by a part of the name."""
OTHER_GPU_FLOPS = 4e12
GPU_STEP_SECONDS = 0.006
"""A step of a small network takes this long on any GPU, for its kernels have to be started."""
CPU_FLOPS = 2e10
"""Of one core, where none like it can be measured here."""
_ASSUMED = CPU_FLOPS, "assumed of a core"


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run on its device and the peak of its memory in bytes (None: not known), and how that is known."""

    seconds: float | None
    peak_bytes: int | None
    source: str


class UnknownCost(Exception):
    """The arithmetic of a model could not be counted: an estimate is a courtesy and must not stop a sweep."""


def estimate(
    runs: Sequence[Run], root: Path, device: str, measure: Callable[[Run], float] | None = None
) -> list[Estimate]:
    """An estimate for each run on `device`, which is "cpu" (one core) or the name of a GPU as in results' provenance.

    Of runs that share one score vector the first bears its cost. `measure` gives float operations a second of the
    device itself on a run; without it stated figures are used. It is called once for each kind of arithmetic (precision
    and order of pixels), and only if something has not been measured.
    """
    arithmetic = _Arithmetic(device, measure)
    known: dict[tuple[str, str], _Measured] = {}
    scored: set[tuple[Any, ...]] = set()
    found = []
    for run in runs:
        cell = run.cell
        place = cell.dataset, cell.model
        if place not in known:
            known[place] = _Measured(_samples(root, *place), device)
        key = score_key(run)
        free = key in scored
        scored.add(key)
        found.append(_estimate(run, known[place], arithmetic, free))
    return found


def _estimate(run: Run, measured: _Measured, arithmetic: _Arithmetic, scoring_is_free: bool) -> Estimate:
    training, scoring = measured.training(run), measured.scoring(run)
    stated = training is None or (scoring is None and not scoring_is_free)
    try:
        seconds = arithmetic.training(run) if training is None else training[0]
        if not scoring_is_free:
            seconds += arithmetic.scoring(run) if scoring is None else scoring
    except UnknownCost as error:
        return Estimate(None, measured.peak_bytes, str(error))
    if training is None:
        source = f"from FLOPs at {arithmetic.rate(run)}"
    else:
        source = f"from {training[1]} measured cells" if training[1] > 1 else "from 1 measured cell"
        if stated:
            source += f", scoring from FLOPs at {arithmetic.rate(run)}"
    return Estimate(seconds, measured.peak_bytes, source)


def _samples(root: Path, dataset: str, model: str) -> list[dict[str, Any]]:
    """Some results of each method, read whole."""
    found = []
    folder = root / "runs" / dataset / model
    for method in sorted(folder.iterdir()) if folder.is_dir() else ():
        names = sorted(path for path in method.iterdir() if path.suffix == ".json") if method.is_dir() else []
        for name in _spread(names):
            try:
                found.append(results.read_plain(name))
            except (OSError, PaiBenchError):
                continue
    return found


def _spread(names: Sequence[Path]) -> list[Path]:
    """Some files of each recipe, so that many of one do not hide the few of another."""
    recipes: dict[str, list[Path]] = {}
    for name in names:
        # The name of a result is s<sparsity>-seed<seed>-<recipe>-<fingerprint>.json.
        recipes.setdefault(name.stem.partition("-seed")[2].partition("-")[2].rpartition("-")[0], []).append(name)
    chosen = [name for group in recipes.values() for name in group[:: max(1, len(group) // SAMPLE)][:SAMPLE]]
    return chosen[:: -(-len(chosen) // MOST)] if chosen else []


class _Measured:
    """What results of one data set and model on one device say of others."""

    def __init__(self, samples: Iterable[dict[str, Any]], device: str) -> None:
        self._samples = [
            s
            for s in samples
            if s["provenance"].get("device") == device and {"train", "scoring"} <= s["recipe_values"].keys()
        ]
        peaks = [s["costs"].get(key) for s in self._samples for key in ("train_peak_bytes", "score_peak_bytes")]
        self.peak_bytes = max((int(peak) for peak in peaks if peak), default=None)

        self._rates: dict[tuple[Any, ...], tuple[float, int] | None] = {}
        self._scoring: dict[tuple[str, str], float | None] = {}

    def training(self, run: Run) -> tuple[float, int] | None:
        """Seconds, by the work of the recipe, and the number of results that say so: those of the same speed."""
        values, info = run.recipe.values(), loading.info(run.cell.dataset)

        def work(of: Mapping[str, Any]) -> float:
            return workload.forward_passes(of, info.train, info.test)

        wanted = work(values)
        key = *workload.speed_key(values), wanted
        if key not in self._rates:
            trained = [(s["costs"].get("train_seconds"), s["recipe_values"]) for s in self._samples]
            alike = [(seconds, work(of)) for seconds, of in trained if seconds and workload.speed_key(of) == key[:-1]]
            # The first epoch takes longer, so that runs of the same length say more.
            alike = [(seconds, amount) for seconds, amount in alike if amount == wanted] or alike
            rates = [seconds / amount for seconds, amount in alike]
            self._rates[key] = (median(rates), len(rates)) if rates else None
        rate = self._rates[key]
        return None if rate is None else (rate[0] * wanted, rate[1])

    def scoring(self, run: Run) -> float | None:
        """Seconds of the method with these hyper-parameters, on as many samples of the same precision."""
        method = str(run.cell.spec.uncontrolled)
        key = method, run.recipe.name
        if key not in self._scoring:
            wanted = run.recipe.values()["scoring"]
            seconds = [
                s["costs"].get("score_seconds")
                for s in self._samples
                if str(MethodSpec.parse(s["method"]).uncontrolled) == method and s["recipe_values"]["scoring"] == wanted
            ]
            known = [value for value in seconds if value is not None]
            self._scoring[key] = median(known) if known else None
        return self._scoring[key]


class _Arithmetic:
    """Seconds from numbers of operations."""

    def __init__(self, device: str, measure: Callable[[Run], float] | None) -> None:
        self._device = device
        self._measure = measure
        self._flops: dict[tuple[str, bool], tuple[float, str]] = {}
        self._failed: set[tuple[str, str]] = set()
        """Data sets and models on which no rate could be measured."""

    def rate(self, run: Run) -> str:
        """Operations a second in words, and where the figure is from."""
        flops, said = self._per_second(run)
        billions = flops / 1e9
        return f"{billions:.0f} GFLOP/s {said}" if billions >= 10 else f"{billions:.2g} GFLOP/s {said}"

    def _per_second(self, run: Run) -> tuple[float, str]:
        train = run.recipe.train
        key = train.precision, train.channels_last
        if key not in self._flops:
            if self._measure is not None:
                return self._flops.setdefault(key, measured) if (measured := self._measured(run)) else _ASSUMED
            if self._device == "cpu":
                self._flops[key] = _ASSUMED
            else:
                known = (flops for name, flops in GPU_FLOPS.items() if name in self._device)
                self._flops[key] = next(known, OTHER_GPU_FLOPS), f"assumed of {self._device}"
        return self._flops[key]

    def _measured(self, run: Run) -> tuple[float, str] | None:
        """The rate of the device on a run; None where its network cannot be timed, which another one may be."""
        place = run.cell.dataset, run.cell.model
        if self._measure is not None and place not in self._failed:
            try:
                return self._measure(run), "measured just now"
            except Exception:  # a stranger's network may raise anything
                self._failed.add(place)
        return None

    def _seconds(self, run: Run, flops: float, steps: float) -> float:
        least = 0.0 if self._device == "cpu" else steps * GPU_STEP_SECONDS
        return max(flops / self._per_second(run)[0], least)

    def training(self, run: Run) -> float:
        """Forward and backward on the images that are trained on each epoch, and the evaluations."""
        info, values, train = loading.info(run.cell.dataset), run.recipe.values(), run.recipe.train
        passes = workload.forward_passes(values, info.train, info.test)
        steps = workload.trained_images(values, info.train) / train.batch_size * train.epochs
        return self._seconds(run, passes * _dense_flops(run.cell.dataset, run.cell.model), steps)

    def scoring(self, run: Run) -> float:
        """Forward and backward on every sample in every round; float64 takes longer, on most GPUs much longer."""
        scorer, settings = run.scorer(), run.recipe.scoring
        if not getattr(scorer, "prunes", True):
            return 0.0
        needed = getattr(scorer, "batches_needed", None)
        passes = max(1, int(getattr(scorer, "rounds", 1))) * (needed() if needed else settings.batches)
        slower = float64_slowdown(self._device) if settings.dtype == "float64" else 1
        flops = workload.BACKWARD * passes * settings.batch_size * _dense_flops(run.cell.dataset, run.cell.model)
        return self._seconds(run, flops * slower, passes)


@cache
def _network(dataset: str, model: str) -> nn.Module:
    info = loading.info(dataset)
    return models.build(model, info.channels, info.size, info.classes)


@cache
def _counted(dataset: str, model: str) -> int | str:
    """Operations of one forward pass, or why they could not be counted: both are remembered."""
    info = loading.info(dataset)
    try:
        counted = flops.flops(_network(dataset, model), {}, (info.channels, info.size, info.size))[0]
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return counted or "no operation of a conv or linear layer was counted"


def _dense_flops(dataset: str, model: str) -> int:
    counted = _counted(dataset, model)
    if isinstance(counted, str):
        raise UnknownCost(counted)
    return counted


def calibrate(run: Run, seconds: float = 0.5) -> float:
    """Float operations a second of one CPU core that trains this network in the arithmetic of the run's recipe.

    Measured for about `seconds` of processor time, which other processes on a busy machine do not lengthen.
    """
    dataset, model, train = run.cell.dataset, run.cell.model, run.recipe.train
    info, flops = loading.info(dataset), _dense_flops(dataset, model)
    # A batch as large as a protocol's, unless its one step would take too long.
    size = int(max(2, min(128, 2e9 / flops)))
    images, targets = torch.rand(size, info.channels, info.size, info.size), torch.arange(size) % info.classes
    network = laid_out(deepcopy(_network(dataset, model)), train.channels_last)

    def step(n_images: int) -> float:
        """Processor seconds of a forward and backward pass."""
        began = time.process_time()
        logits = forward(network, images[:n_images], train.precision == "bfloat16", train.channels_last)
        torch.autograd.backward(nn.functional.cross_entropy(logits, targets[:n_images]))
        return time.process_time() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        step(2)  # the first pass chooses kernels and allocates
        taken = [step(size)]
        end = time.monotonic() + 4 * seconds
        while sum(taken) < seconds and time.monotonic() < end:
            taken.append(step(size))
    finally:
        torch.set_num_threads(threads)
    return workload.BACKWARD * flops * size / max(median(taken), 1e-6)


def lines(runs: Sequence[Run], found: Sequence[Estimate], device: str, places: int) -> list[str]:
    """What all of it costs, and where there are several, what each data set, model and recipe does."""
    groups: dict[str, list[tuple[float, str]]] = {}
    unknown: dict[str, str] = {}
    for run, e in zip(runs, found, strict=True):
        if e.seconds is None:
            unknown.setdefault(f"{run.cell.model} on {run.cell.dataset}", e.source)
        else:
            name = f"{run.cell.dataset} · {run.cell.model} · recipe {run.recipe.name}"
            groups.setdefault(name, []).append((e.seconds, e.source))
    notes = [f"cost unknown for {name} ({reason})" for name, reason in unknown.items()]
    if not groups:
        return notes
    known = [each for es in groups.values() for each in es]
    total = sum(seconds for seconds, _ in known)
    workers = "1 worker" if places == 1 else f"{places} workers"
    head = f"cost: {_hours(total, device)}, {duration(total / places)} on {workers}"
    if len(groups) == 1:
        return [f"{head}; {_each(known)}", *notes]
    each = (f"  {name}: {_hours(sum(s for s, _ in es), device)}; {_each(es)}" for name, es in groups.items())
    return [head, *each, *notes]


def _hours(seconds: float, device: str) -> str:
    """Hours to two digits, as 0.25, 42 or 5,600."""
    hours = float(f"{seconds / 3600:.2g}")
    amount = "less than 0.01" if seconds < 36 else f"about {hours:,.0f}" if hours >= 10 else f"about {hours:g}"
    return f"{amount} {'core' if device == 'cpu' else 'GPU'}-hours"


def _each(found: Sequence[tuple[float, str]]) -> str:
    """Seconds a cell, shortest to longest, and how most of them are known."""
    least, most = duration(min(found)[0]), duration(max(found)[0])
    sources = [source for source, _ in Counter(source for _, source in found).most_common()]
    mostly = "mostly " if len(sources) > 1 else ""
    return f"{least if least == most else f'{least} to {most}'} a cell ({mostly}{sources[0]})"
