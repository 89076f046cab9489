"""Cost estimates for cells before they run: from measured similar cells, or from their number of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pai_bench import results
from pai_bench.cells import SMALL_DENSE, MethodSpec
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.recipes.schema import tuples
from pai_bench.results.float64 import float64_slowdown
from pai_bench.sweep.planning import workload
from pai_bench.sweep.planning.operations import UnknownCost, dense_flops
from pai_bench.sweep.planning.plan import score_key

SAMPLE = 6
"""Number of results read for each method and recipe, evenly spaced; a median does not need thousands of them."""
MOST = 10 * SAMPLE
"""Maximum number of results read for each method, over all recipes."""

GPU_FLOPS = {"H200": 12e12, "H100": 12e12, "A100": 8e12, "L40": 8e12, "4090": 8e12, "V100": 5e12, "T4": 2e12}
"""Rough rates reached when training small networks, in operations per second, by a part of the GPU's name."""
OTHER_GPU_FLOPS = 4e12
GPU_STEP_SECONDS = 0.006
"""Minimum seconds of an eager pass or step on any GPU: the launch overhead of the kernels of a small network."""
CAPTURED_STEP_SECONDS = 0.0005
"""Minimum seconds of a captured training step: about 230 kernels of a small network, at 2 us each."""
CPU_FLOPS = 2e10
"""Operations per second of one core, used if no core of the device can be measured."""
_ASSUMED = CPU_FLOPS, "assumed of a core"
NETWORKS = 6
"""Number of networks whose rate is measured, which takes about half a second each; others take the rate of one of them
in the same arithmetic."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run on its device, its peak memory in bytes (None: unknown), and the source of the estimate."""

    seconds: float | None
    peak_bytes: int | None
    source: str


def estimate(
    runs: Sequence[Run], root: Path, device: str, measure: Callable[[Run], float] | None = None
) -> list[Estimate]:
    """Estimate each run on `device`: "cpu" (one core) or the name of a GPU as recorded in the provenance of results.

    Of the runs that share a score vector, the first one bears its cost. `measure` returns the operations per second
    that the device reaches on a run; without it, tabulated rates are used. It is called once for each combination of
    precision and memory format, and only if measured results do not suffice.
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
        seconds = run.trainings() * (arithmetic.training(run) if training is None else training[0])
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
    """Read some results of each method."""
    found = []
    folder = root / "runs" / dataset / model
    for method in sorted(folder.iterdir()) if folder.is_dir() else ():
        names = sorted(path for path in method.iterdir() if path.suffix == ".json") if method.is_dir() else []
        for name in _spread(names):
            try:
                found.append(results.read_plain(name))
            # An estimate does without this result, and the plan reports damaged files.
            except (OSError, PaiBenchError):
                continue
    return found


def _spread(names: Sequence[Path]) -> list[Path]:
    """Choose some files of each recipe, so that a recipe with few results is represented too."""
    recipes: dict[str, list[Path]] = {}
    for name in names:
        # The name of a result is s<sparsity>-seed<seed>-<recipe>-<fingerprint>.json.
        recipes.setdefault(name.stem.partition("-seed")[2].partition("-")[2].rpartition("-")[0], []).append(name)
    chosen = [name for group in recipes.values() for name in group[:: max(1, len(group) // SAMPLE)][:SAMPLE]]
    return chosen[:: -(-len(chosen) // MOST)] if chosen else []


class _Measured:
    """Durations and peak memory of results of one data set and model on one device."""

    def __init__(self, samples: Iterable[dict[str, Any]], device: str) -> None:
        self._samples = [
            s
            for s in samples
            if s["provenance"].get("device") == device
            and not s["method"].startswith(SMALL_DENSE)  # of another size
            and {"train", "scoring"} <= s["recipe_values"].keys()
        ]
        peaks = [s["costs"].get(key) for s in self._samples for key in ("train_peak_bytes", "score_peak_bytes")]
        self.peak_bytes = max((int(peak) for peak in peaks if peak), default=None)

        self._rates: dict[tuple[Any, ...], tuple[float, int] | None] = {}
        self._scoring: dict[tuple[str, str], float | None] = {}

    def training(self, run: Run) -> tuple[float, int] | None:
        """Return the seconds of one training, scaled by the recipe's work, and the number of results they are based on.

        Only results of the same speed key count; None if there are none.
        """
        values, info = run.recipe.values(), loading.info(run.cell.dataset)

        def work(of: Mapping[str, Any]) -> float:
            return workload.forward_passes(of, info.train, info.test)

        passes = work(values)
        key = *workload.speed_key(values), passes
        if key not in self._rates:
            # Methods with several cycles train for more epochs than their recipe has.
            trained = [
                (s["costs"].get("train_seconds"), s["recipe_values"])
                for s in self._samples
                if len(s["curve"]) <= s["recipe_values"]["train"].get("epochs", 0)
            ]
            alike = [(seconds, work(of)) for seconds, of in trained if seconds and workload.speed_key(of) == key[:-1]]
            # The first epoch takes longer; runs of the same length therefore predict better.
            alike = [(seconds, amount) for seconds, amount in alike if amount == passes] or alike
            rates = [seconds / amount for seconds, amount in alike]
            self._rates[key] = (median(rates), len(rates)) if rates else None
        rate = self._rates[key]
        return None if rate is None else (rate[0] * passes, rate[1])

    def scoring(self, run: Run) -> float | None:
        """Return the median seconds of scoring with the same method spec and scoring recipe; None if unknown."""
        method = str(run.cell.spec.uncontrolled)
        key = method, run.recipe.name
        if key not in self._scoring:
            scoring = run.recipe.values()["scoring"]
            defaults = {"only": (), "exclude": ()}  # that older results lack
            seconds = [
                s["costs"].get("score_seconds")
                for s in self._samples
                if str(MethodSpec.parse(s["method"]).uncontrolled) == method
                and {**defaults, **tuples(s["recipe_values"]["scoring"])} == scoring
            ]
            known = [value for value in seconds if value is not None]
            self._scoring[key] = median(known) if known else None
        return self._scoring[key]


class _Arithmetic:
    """Estimates of seconds from numbers of operations."""

    def __init__(self, device: str, measure: Callable[[Run], float] | None) -> None:
        self._device = device
        self._measure = measure
        self._networks: dict[tuple[str, bool, str, str], tuple[float, str]] = {}
        """Measured rates by precision, memory format, data set and model."""
        self._failed: set[tuple[str, str]] = set()
        """Data sets and models on which no rate could be measured."""

    def rate(self, run: Run) -> str:
        """Describe the assumed or measured operations per second, and the source of the figure."""
        flops, said = self._per_second(run)
        billions = flops / 1e9
        return f"{billions:.0f} GFLOP/s {said}" if billions >= 10 else f"{billions:.2g} GFLOP/s {said}"

    def _per_second(self, run: Run) -> tuple[float, str]:
        train = run.recipe.train
        arithmetic = train.precision, train.channels_last
        if self._measure is None:
            return self._assumed()
        network = (*arithmetic, run.cell.dataset, run.cell.model)
        # A small network reaches a fraction of the rate of a large one, so that each is measured.
        if network not in self._networks and len(self._networks) < NETWORKS and (measured := self._measured(run)):
            self._networks[network] = measured
        alike = (rate for other, rate in self._networks.items() if other[:2] == arithmetic)
        return self._networks.get(network) or next(alike, _ASSUMED)

    def _assumed(self) -> tuple[float, str]:
        if self._device == "cpu":
            return _ASSUMED
        known = (flops for name, flops in GPU_FLOPS.items() if name in self._device)
        return next(known, OTHER_GPU_FLOPS), f"assumed of {self._device}"

    def _measured(self, run: Run) -> tuple[float, str] | None:
        """Return the measured rate of the device on a run; None if this run's network cannot be timed."""
        place = run.cell.dataset, run.cell.model
        if self._measure is not None and place not in self._failed:
            try:
                return self._measure(run), "measured just now"
            except Exception:  # a plug-in's network may raise anything
                self._failed.add(place)
        return None

    def _seconds(self, run: Run, flops: float, steps: float, step_seconds: float = GPU_STEP_SECONDS) -> float:
        least = 0.0 if self._device == "cpu" else steps * step_seconds
        return max(flops / self._per_second(run)[0], least)

    def training(self, run: Run) -> float:
        """Return the seconds of training: forward and backward passes over all epochs, and the evaluations."""
        info, values = loading.info(run.cell.dataset), run.recipe.values()
        passes = workload.forward_passes(values, info.train, info.test)
        step_seconds = CAPTURED_STEP_SECONDS if run.recipe.train.cuda_graph else GPU_STEP_SECONDS
        steps = workload.trained_steps(values, info.train)
        return self._seconds(run, passes * dense_flops(run), steps, step_seconds)

    def scoring(self, run: Run) -> float:
        """Return the seconds of scoring: forward and backward passes on every sample in every round.

        In float64 they take longer, on most GPUs much longer.
        """
        scorer, settings = run.scorer(), run.recipe.scoring
        if not getattr(scorer, "prunes", True):
            return 0.0
        if run.search_epochs():
            return self.training(run) * run.search_epochs() / run.recipe.train.epochs
        needed = getattr(scorer, "batches_needed", None)
        passes = max(1, int(getattr(scorer, "rounds", 1))) * (needed() if needed else settings.batches)
        slower = float64_slowdown(self._device) if settings.dtype == "float64" else 1
        flops = workload.BACKWARD * passes * settings.batch_size * dense_flops(run)
        return self._seconds(run, flops * slower, passes)
