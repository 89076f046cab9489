"""Networks of the papers by name, and their initialisation."""

from __future__ import annotations

# Each of these modules registers its networks.
from pai_bench.models import mlp, mobilenet, recurrent, resnet, small, vgg, wide_resnet
from pai_bench.models.initialisation import initialise, schemes
from pai_bench.models.registry import (
    Builder,
    build,
    describe,
    has_width,
    is_builtin,
    module,
    names,
    register_model,
    require_width,
)
from pai_bench.models.widths import closest_width

__all__ = [
    "Builder",
    "build",
    "closest_width",
    "describe",
    "has_width",
    "initialise",
    "is_builtin",
    "mlp",
    "mobilenet",
    "module",
    "names",
    "recurrent",
    "register_model",
    "require_width",
    "resnet",
    "schemes",
    "small",
    "vgg",
    "wide_resnet",
]
