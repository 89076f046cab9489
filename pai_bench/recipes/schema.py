"""Schema of recipes as frozen dataclasses, and the allowed values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from pai_bench.core.facts import GRANULARITIES
from pai_bench.errors import PaiBenchError

SCHEDULES = ("step", "cosine")
DTYPES = ("float64", "float32")
PRECISIONS = ("float32", "tf32", "bfloat16")
SYNONYMS = {("train.precision", "ieee"): "float32"}
"""Other names of values, by key."""
CUDA_GRAPHS = ("auto", True, False)
SPLITS = ("test", "validation")
CROPS = ("pad", "random-resized")
LAST_BATCHES = ("merge", "drop")
KINDS = ("images", "vectors")
LOSSES = ("cross-entropy", "binary-cross-entropy")
SCORING_DATA = ("train", "noise", "shuffled-pixels", "random-labels", "one-class")


@dataclass(frozen=True)
class Init:
    """Initialisation of the weights: the name of a scheme of `pai_bench.models`."""

    scheme: str


@dataclass(frozen=True)
class Train:
    """SGD and its learning-rate schedule; durations in epochs unless the key is in steps."""

    epochs: int
    """Length of the training; 0 if `steps` is given."""
    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    """Applied to every parameter, including biases and norms, as in the code of all papers."""
    schedule: str
    """"step": multiply by `gamma` at each of `milestones`; "cosine": decay to 0 at the end."""
    milestones: tuple[int, ...]
    gamma: float
    warmup_epochs: float
    """Length of the linear warm-up from 0."""
    evaluate_every: int
    """Interval of evaluations in epochs; the last epoch is always evaluated."""
    precision: str = "float32"
    """Precision of convolutions and products; weights are float32. "float32" is IEEE arithmetic, the reference
    ("ieee" is the same); "tf32" is TF32 in channels-last format on a GPU, and float32 elsewhere; "bfloat16" is
    autocast."""
    channels_last: bool = False
    """Channels-last memory format: often faster, with another order of summation."""
    cuda_graph: bool | str = "auto"
    """Capture of the step as a CUDA graph on a GPU: "auto", where the captured step agrees with the step by hand, or
    false. The numbers are the same, and neither value is in the fingerprint. true does the same as "auto", and is in
    the fingerprint for the sake of results of earlier versions."""
    last_batch: str = "merge"
    """Treatment of a last batch of one image, on which some batch norms fail: "merge" it into the batch before it, or
    "drop" it. Networks without this restriction and longer last batches are not affected."""
    loss: str = "cross-entropy"
    """Loss of training and scoring: "cross-entropy", or "binary-cross-entropy" of one logit for data of two classes."""
    steps: int = 0
    """Length of the training in steps instead of `epochs`; the last epoch may be incomplete. 0: `epochs` is given."""
    milestone_steps: tuple[int, ...] = ()
    """Steps at which the schedule "step" multiplies by `gamma`, in addition to `milestones`; the first step is 0."""
    compile: bool = False
    """Compile the training steps with torch.compile: other kernels, which round differently."""


@dataclass(frozen=True)
class Data:
    """Split of the data, augmentation of training images, and normalisation by channel for pixel values in [0, 1]."""

    padding: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "pad"
    """"pad": zero padding, then a crop of the original size; "random-resized": a part of the image, resized."""
    scale: tuple[float, ...] = (0.08, 1.0)
    """Smallest and largest area of a random-resized crop, as a fraction of the image."""
    ratio: tuple[float, ...] = (0.75, 1.3333333333333333)
    """Smallest and largest aspect ratio (width / height) of a random-resized crop."""
    split: str = "test"
    """Images for measuring accuracy: "test", or "validation", a held-out part of the training set."""
    validation_size: float = 0.1
    """Size of the validation part, as a fraction of each class."""
    split_seed: int = 0
    """Seed of the split; the same for all cells, so that they can be compared."""
    kind: str = "images"
    """Kind of the inputs, which the data set must have: "images", or "vectors" of numbers, which are not augmented."""
    train_fraction: float = 1.0
    """Fraction of the training set to use; the validation part is taken from the unused images first."""


@dataclass(frozen=True)
class Scoring:
    """Data for scoring (class-balanced training images without augmentation), its precision, and the pruned layers."""

    batch_size: int
    batches: int
    """Number of batches, for methods that do not set their own."""
    dtype: str
    only: tuple[str, ...] = ()
    """Patterns of the layers or weights to prune, such as "layer4.*"; empty for all prunable ones."""
    exclude: tuple[str, ...] = ()
    """Patterns of the layers or weights to exclude from pruning, such as "fc"."""
    data: str = "train"
    """Images and labels to score with: "train", or a control: "noise" (standard normal inputs), "shuffled-pixels",
    "random-labels", "one-class"."""
    warmup: int = 0
    """Number of forward passes in train mode before scoring, which settle the running statistics of BatchNorm."""
    effective: bool = False
    """Meet the sparsity with the weights on a path from input to output; the mask keeps as many more as are not."""
    granularity: str = "weight"
    """Units that masks keep or prune, and patterns that they have: "weight", "kernel", "channel", "2:4" or
    "constant-fan-in"; see docs/structured.md."""


@dataclass(frozen=True)
class Recipe:
    """A recipe resolved for one data set and model."""

    name: str
    dataset: str
    init: Init
    train: Train
    data: Data
    scoring: Scoring
    summary: str = field(default="", compare=False)
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    """Pairs (table.key, source of the value)."""

    def values(self) -> dict[str, dict[str, Any]]:
        """Return all values by table and key, as plain data."""
        return {table: asdict(getattr(self, table)) for table in TABLES}

    def identity(self) -> dict[str, dict[str, Any]]:
        """Return the values included in the fingerprint: all that differ from their default."""
        defaults = {
            (table, f.name): f.default
            for table, kind in TABLES.items()
            for f in fields(kind)
            if f.default is not MISSING
        }
        return {
            table: {
                key: value
                for key, value in values.items()
                if defaults.get((table, key), MISSING) != value and not is_mechanism(f"{table}.{key}", value)
            }
            for table, values in self.values().items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return name, data set and values as plain data; `from_dict` reads it."""
        return {"name": self.name, "dataset": self.dataset, **self.values()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """Recreate the recipe from the output of `as_dict`, without summary and sources."""
        tables = {name: kind(**tuples(plain[name])) for name, kind in TABLES.items()}
        return cls(name=plain["name"], dataset=plain["dataset"], **tables)


def is_mechanism(key: str, value: Any) -> bool:
    """Return True if a value selects how the same numbers are computed, and is not part of a recipe's identity."""
    return key == "train.cuda_graph" and value is not True


TABLES: dict[str, type] = {"init": Init, "train": Train, "data": Data, "scoring": Scoring}


def tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the lists of a plain table to tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


@dataclass(frozen=True)
class Defaults:
    """Defaults of a sweep for a data set."""

    model: str
    recipe: str
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]


def check(recipe: Recipe, where: str) -> None:
    """Check that every value is in its allowed range.

    Raises: PaiBenchError with `where`, the key and the allowed values.
    """
    train, data, scoring = recipe.train, recipe.data, recipe.scoring

    def positive(x: float) -> bool:
        return 0 < x < math.inf

    def not_negative(x: float) -> bool:
        return 0 <= x < math.inf

    rules: list[tuple[str, Any, bool, str]] = [
        (
            "train.epochs",
            train.epochs,
            train.epochs == 0 if train.steps > 0 else positive(train.epochs),
            f"0, because train.steps = {train.steps} gives the length (train.steps=0 to give it in epochs)"
            if train.steps > 0
            else "1 or more",
        ),
        ("train.steps", train.steps, not_negative(train.steps), "0 or more"),
        ("train.batch_size", train.batch_size, positive(train.batch_size), "1 or more"),
        ("train.lr", train.lr, positive(train.lr), "above 0"),
        ("train.momentum", train.momentum, 0 <= train.momentum < 1, "in [0, 1)"),
        ("train.nesterov", train.nesterov, not train.nesterov or train.momentum > 0, "false when momentum is 0"),
        ("train.weight_decay", train.weight_decay, not_negative(train.weight_decay), "0 or more"),
        ("train.schedule", train.schedule, train.schedule in SCHEDULES, " or ".join(SCHEDULES)),
        ("train.milestones", train.milestones, _ascending(train.milestones), "0 or more, ascending"),
        ("train.milestone_steps", train.milestone_steps, _ascending(train.milestone_steps), "0 or more, ascending"),
        ("train.gamma", train.gamma, positive(train.gamma), "above 0"),
        (
            "train.warmup_epochs",
            train.warmup_epochs,
            0 <= train.warmup_epochs < (math.inf if train.steps > 0 else train.epochs),
            f"shorter than train.epochs ({train.epochs}): --set train.warmup_epochs=0 leaves it out",
        ),
        ("train.evaluate_every", train.evaluate_every, positive(train.evaluate_every), "1 or more"),
        ("train.precision", train.precision, train.precision in PRECISIONS, " or ".join(PRECISIONS)),
        ("train.cuda_graph", train.cuda_graph, train.cuda_graph in CUDA_GRAPHS, '"auto", true or false'),
        ("train.last_batch", train.last_batch, train.last_batch in LAST_BATCHES, " or ".join(LAST_BATCHES)),
        ("train.loss", train.loss, train.loss in LOSSES, " or ".join(LOSSES)),
        ("data.kind", data.kind, data.kind in KINDS, " or ".join(KINDS)),
        (
            "data.padding",
            data.padding,
            data.padding >= 0 if data.crop == "pad" and data.kind == "images" else data.padding == 0,
            '0 or more, and 0 with crop = "random-resized" and with kind = "vectors"',
        ),
        ("data.flip", data.flip, not data.flip or data.kind == "images", 'false with kind = "vectors"'),
        (
            "data.crop",
            data.crop,
            data.crop in (CROPS if data.kind == "images" else CROPS[:1]),
            f'{" or ".join(CROPS)}, and {CROPS[0]} with kind = "vectors"',
        ),
        ("data.scale", data.scale, len(data.scale) == 2 and 0 < data.scale[0] <= data.scale[1] <= 1, "in (0, 1]"),
        (
            "data.ratio",
            data.ratio,
            len(data.ratio) == 2 and 0 < data.ratio[0] <= data.ratio[1] < math.inf,
            "above 0, the lesser one first",
        ),
        ("data.split", data.split, data.split in SPLITS, " or ".join(SPLITS)),
        ("data.validation_size", data.validation_size, 0 < data.validation_size < 1, "in (0, 1)"),
        ("data.train_fraction", data.train_fraction, 0 < data.train_fraction <= 1, "in (0, 1]"),
        ("data.mean", data.mean, len(data.mean) > 0 and all(map(math.isfinite, data.mean)), "one number a channel"),
        (
            "data.std",
            data.std,
            all(map(positive, data.std)) and len(data.std) == len(data.mean),
            "above 0, as many as mean",
        ),
        ("scoring.batch_size", scoring.batch_size, positive(scoring.batch_size), "1 or more"),
        ("scoring.batches", scoring.batches, positive(scoring.batches), "1 or more"),
        ("scoring.dtype", scoring.dtype, scoring.dtype in DTYPES, " or ".join(DTYPES)),
        ("scoring.only", scoring.only, all(scoring.only), "patterns that are not empty"),
        ("scoring.exclude", scoring.exclude, all(scoring.exclude), "patterns that are not empty"),
        ("scoring.data", scoring.data, scoring.data in SCORING_DATA, " or ".join(SCORING_DATA)),
        (
            "scoring.granularity",
            scoring.granularity,
            scoring.granularity in GRANULARITIES,
            " or ".join(GRANULARITIES),
        ),
        ("scoring.warmup", scoring.warmup, not_negative(scoring.warmup), "0 or more"),
    ]
    for key, value, good, allowed in rules:
        if not good:
            raise PaiBenchError(f"{where}: {key} = {value!r} is not allowed", f"it must be {allowed}")


def _ascending(times: Sequence[int]) -> bool:
    return list(times) == sorted(times) and min(times, default=0) >= 0
