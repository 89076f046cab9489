"""Names of methods, data sets and models as papers print them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pai_bench.analysis.style import parsed
from pai_bench.cells import MethodSpec

_METHODS = {
    "random": "Random",
    "uniform": "Uniform",
    "erk": "ERK",
    "magnitude": "Magnitude",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "prospr": "ProsPr",
    "iterative-snip": "Iterative SNIP",
    "force": "FORCE",
    "ntk-sap": "NTK-SAP",
    "px": "PX",
    "er": "ER",
    "balanced": "Balanced",
    "igq": "IGQ",
    "uniform-plus": "Uniform+",
    "smart-ratio": "Smart-Ratio",
    "iterative-grasp": "Iterative GraSP",
    "synflow-l2": "SynFlow-L2",
    "phew": "PHEW",
    "grad-norm": "Gradient norm",
    "fisher": "Fisher diagonal",
    "fisher-pruning": "Fisher pruning",
    "fts": "FTS",
    "hutchinson": "Hutchinson diagonal",
    "hutchinson-pruning": "Hutchinson pruning",
    "hts": "HTS",
    "multiflow": "MULTIFLOW",
    "dpai": "DPaI",
    "npb": "NPB",
    "rigl": "RigL",
    "set": "SET",
    "gmp": "GMP",
    "after-training": "Magnitude after training",
    "ltr": "LTR",
    "lr-rewinding": "Learning-rate rewinding",
    "edge-popup": "Edge-Popup",
    "gem-miner": "Gem-Miner",
    "small-dense": "Smaller dense",
}
_DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tinyimagenet": "Tiny-ImageNet",
    "imagenet": "ImageNet",
    "mnist": "MNIST",
    "fashionmnist": "Fashion-MNIST",
    "svhn": "SVHN",
}
_FOLDERS = re.compile(r"^(?:lottery|tiny|tinyimagenet|imagenet|cifar)_", re.IGNORECASE)
"""Prefixes of model names in the results of Synaptic-Flow, which name the module of a network."""
_FAMILIES = (
    (re.compile(r"^vgg-?(\d+)[-_]?bn(.*)$", re.IGNORECASE), "VGG-{0}-BN{1}"),
    (re.compile(r"^vgg-?(\d+)(.*)$", re.IGNORECASE), "VGG-{0}{1}"),
    (re.compile(r"^wide[-_]?resnet-?(\d+)(.*)$", re.IGNORECASE), "WideResNet-{0}{1}"),
    (re.compile(r"^resnet-?(\d+)(.*)$", re.IGNORECASE), "ResNet-{0}{1}"),
    (re.compile(r"^wrn[-_]?(\d+)[-_](\d+)(.*)$", re.IGNORECASE), "WRN-{0}-{1}{2}"),
    (re.compile(r"^mobilenet-?v2(.*)$", re.IGNORECASE), "MobileNetV2{0}"),
    (re.compile(r"^lenet-(.*)$", re.IGNORECASE), "LeNet-{0}"),
)


def method_name(method: str) -> str:
    """Return a method's name as in papers; a variant has its hyper-parameters and its control in brackets."""
    spec = parsed(method)
    if spec is None or spec.name not in _METHODS:
        return method
    values = [f"{key} = {value}" for key, value in spec.hyperparameters]
    extra = ", ".join([*values, *([spec.control] if spec.control else [])])
    return _METHODS[spec.name] + (f" ({extra})" if extra else "")


def dataset_name(dataset: str) -> str:
    """Return a data set's name as in papers; an unknown name as it is."""
    return _DATASETS.get(re.sub(r"[-_ ]", "", dataset.lower()), dataset)


def model_name(model: str) -> str:
    """Return a model's name as in papers, without the module that some tables put before it; else as it is."""
    bare = _FOLDERS.sub("", model)
    for pattern, form in _FAMILIES:
        if found := pattern.match(bare):
            return form.format(*found.groups())
    return model


def recipe_names(recipes: Iterable[str]) -> dict[str, str]:
    """Return by recipe what distinguishes it from the others: its name, and the values that not all of them have.

    "quick+scoring.granularity=channel+train.epochs=2" beside "quick+train.epochs=2" is "granularity=channel" beside
    "quick". A single recipe has an empty name.
    """
    parts = {recipe: recipe.split("+") for recipe in dict.fromkeys(recipes)}
    if len(parts) < 2:
        return dict.fromkeys(parts, "")
    shared = set.intersection(*(set(changes) for _, *changes in parts.values()))
    bases = {base for base, *_ in parts.values()}
    names = {}
    for recipe, (base, *changes) in parts.items():
        own = [change.partition(".")[2] or change for change in changes if change not in shared]
        names[recipe] = ", ".join([base] * (len(bases) > 1 or not own) + own)
    return distinct(parts, names.__getitem__)


def distinct(names: Iterable[str], display: Callable[[str], str]) -> dict[str, str]:
    """Return the display name by name; names that would be displayed alike keep their own."""
    shown = {name: display(name) for name in dict.fromkeys(names)}
    counts = [*shown.values()]
    return {name: text if counts.count(text) == 1 else name for name, text in shown.items()}


def is_spec_of(method: str, name: str) -> bool:
    """Return True if `method` is `name` itself or one of its variants; both may be any text."""
    if method == name:
        return True
    spec, displayed_spec = parsed(method), parsed(name)
    return spec is not None and displayed_spec == MethodSpec(spec.name)
