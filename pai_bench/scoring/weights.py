"""Prunable weights of a model: the layers that count, patterns that select among them, and the matrices left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from pai_bench.errors import PaiBenchError

PRUNABLE_MODULES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
"""Layers whose `weight` is prunable."""

SHARE = 0.1
"""Part of a model's matrix weights that may be left out without a warning."""

Patterns = str | Sequence[str]
"""Shell patterns (fnmatch) of parameters and layers; a layer stands for all that is in it."""


def _attributes(module: nn.Module) -> list[str]:
    """Return the names of a module's prunable weights.

    Conv and linear layers, the projections of nn.MultiheadAttention, the input, hidden and projection matrices of
    nn.RNN, nn.LSTM, nn.GRU and their cells, and Conv1D of Hugging Face transformers (a linear layer [in, out]).
    """
    if isinstance(module, PRUNABLE_MODULES):
        return ["weight"]
    if isinstance(module, nn.MultiheadAttention):
        return ["in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"]
    if isinstance(module, nn.RNNBase):
        return [name for name in module._flat_weights_names if name.startswith("weight_")]
    if isinstance(module, nn.RNNCellBase):
        return ["weight_ih", "weight_hh"]
    return ["weight"] if _is_conv1d(module) else []


def _is_conv1d(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return type(module).__name__ == "Conv1D" and weight is not None and tuple(weight.shape[1:]) == (_width(module),)


def _width(module: nn.Module) -> int:
    return int(getattr(module, "nf", -1))


@dataclass(frozen=True)
class Prunable:
    """The weights of a model that pruning counts, and its other matrices; sizes by parameter name."""

    weights: dict[str, int]
    """Counted: sparsity is a fraction of their sum."""
    left_out: dict[str, int]
    """Matrices that are not counted: bare parameters, other layers, and weights excluded by the patterns."""
    frozen: dict[str, int]
    """Matrices with requires_grad=False that are not counted."""
    embeddings: dict[str, int]
    """Tables of nn.Embedding and nn.EmbeddingBag, which are not counted unless a linear layer shares them."""

    @property
    def share(self) -> float:
        """The fraction of the matrix weights that is counted; frozen ones and tables of embeddings are left aside."""
        counted, others = sum(self.weights.values()), sum(self.left_out.values())
        return counted / (counted + others)

    def __str__(self) -> str:
        counted = sum(self.weights.values())
        total = counted + sum(self.left_out.values())
        text = f"{counted:,} of {total:,} matrix weights are prunable ({100 * self.share:.3g} %)"
        groups = {"not prunable": self.left_out, "frozen": self.frozen, "embeddings": self.embeddings}
        for what, sizes in groups.items():
            if sizes:
                shown = [f"{name} ({size:,})" for name, size in list(sizes.items())[:5]]
                shown += [f"{len(sizes) - 5} more"] if len(sizes) > 5 else []
                text += f"; {what}: {', '.join(shown)}"
        return text


def prunable(model: nn.Module, *, only: Patterns = (), exclude: Patterns = ()) -> Prunable:
    """List what `prune` counts with these patterns, and the matrices that it does not count.

    Raises: PaiBenchError as `prunable_weights` does.
    """
    weights = prunable_weights(model, only=only, exclude=exclude)
    tables = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    embedded = {id(m.weight) for m in tables}
    counted = {id(weight) for weight in weights.values()}
    # Gains and biases of a norm over several dimensions have its shape, but are not matrices.
    scales = {id(p) for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.RMSNorm)) for p in m.parameters()}
    others = {
        name: parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in counted | scales and sum(side > 1 for side in parameter.shape) > 1
    }

    def group(parameter: nn.Parameter) -> str:
        return "embedding" if id(parameter) in embedded else "other" if parameter.requires_grad else "frozen"

    def sizes(kind: str) -> dict[str, int]:
        return {name: other.numel() for name, other in others.items() if group(other) == kind}

    return Prunable(
        weights={name: weight.numel() for name, weight in weights.items()},
        left_out=sizes("other"),
        frozen=sizes("frozen"),
        embeddings=sizes("embedding"),
    )


def warn_of_left_out(model: nn.Module) -> None:
    """Warn where more than a tenth of a model's matrix weights is not counted."""
    found = prunable(model)
    if found.share < 1 - SHARE:
        warnings.warn(
            f"{type(model).__name__}: {found}; sparsity counts the prunable ones alone (pai_bench.prunable lists them)",
            UserWarning,
            stacklevel=5,
        )


def prunable_weights(model: nn.Module, *, only: Patterns = (), exclude: Patterns = ()) -> dict[str, nn.Parameter]:
    """Return the prunable parameters by name, in the model's order (see docs/methods.md for the list of layers).

    Biases and norms are not prunable. A weight shared by two layers is listed once. `only` and `exclude` are patterns
    (fnmatch) of parameters or layers, such as ``fc``, ``layer4.*`` or ``*.in_proj_weight``. A weight with
    requires_grad=False is left out, unless `only` matches it or all prunable weights are frozen.

    Raises: PaiBenchError when the model has none, one that is complex, computed from other parameters or not drawn
    yet, or a pattern that matches none.
    """
    check_initialised(model)
    found = {id(weight) for _, weight in _weights(model)}
    every = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in found}
    if every and not any(parameter.numel() for parameter in every.values()):
        raise PaiBenchError(
            f"{type(model).__name__} has nothing to prune: its weights have no elements",
            "build its layers with at least one input and one output",
        )
    every = {name: parameter for name, parameter in every.items() if parameter.numel()}
    if not every:
        raise PaiBenchError(
            f"{type(model).__name__} has nothing to prune: it has no conv, linear, attention or recurrent layer",
            "pass a model with layers such as nn.Conv2d, nn.Linear, nn.MultiheadAttention or nn.LSTM"
            " (biases, norms and bare parameters are not prunable)",
        )
    for name, parameter in every.items():
        if parameter.is_complex():
            raise PaiBenchError(
                f"{name} has complex weights ({str(parameter.dtype)[6:]}), which no method scores",
                "write the layer with real weights, one layer for each part",
            )
    # A pattern may match a tied weight under any of its names.
    aliases: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    named, excluded = _texts(only), _texts(exclude)
    for option, patterns in (("only", named), ("exclude", excluded)):
        for pattern in patterns:
            if not any(_matches(alias, pattern) for p in every.values() for alias in aliases[id(p)]):
                raise PaiBenchError(
                    f"{option}: {pattern!r} matches no prunable weight", f"prunable are {', '.join(every)}"
                )
    frozen = not any(parameter.requires_grad for parameter in every.values())

    def chosen(parameter: nn.Parameter) -> bool:
        names = aliases[id(parameter)]
        if any(_matches(name, pattern) for name in names for pattern in excluded):
            return False
        if named:
            return any(_matches(name, pattern) for name in names for pattern in named)
        return frozen or parameter.requires_grad

    weights = {name: parameter for name, parameter in every.items() if chosen(parameter)}
    if not weights:
        raise PaiBenchError("only and exclude leave no weight to prune", f"prunable are {', '.join(every)}")
    return weights


def _weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, module in model.named_modules():
        for attribute in _attributes(module):
            # A score of the computed weight could not be turned into a mask: the layer computes it again in each pass.
            if attribute not in module._parameters:
                raise _not_a_parameter(name, module, attribute)
            weight = module._parameters[attribute]
            if weight is not None:
                yield f"{name}.{attribute}", weight


def _not_a_parameter(name: str, module: nn.Module, attribute: str) -> PaiBenchError:
    where = f"layer {name}" if name else f"the {type(module).__name__}"
    computed = hasattr(module, "parametrizations") or any(key.startswith(f"{attribute}_") for key in module._parameters)
    if not computed and isinstance(getattr(module, attribute, None), Tensor):
        kind = "buffer" if attribute in module._buffers else "tensor that is not registered"
        return PaiBenchError(
            f"the {attribute} of {where} is a {kind}, and only parameters are pruned",
            "make it a parameter: torch.nn.Parameter(tensor, requires_grad=False) for one that is not trained",
        )
    return PaiBenchError(
        f"the {attribute} of {where} is computed from other parameters (weight_norm, torch's own pruning)",
        "make it a parameter: torch.nn.utils.parametrize.remove_parametrizations or prune.remove",
    )


def check_initialised(model: nn.Module) -> None:
    """Check that no lazy module waits for its first batch.

    Raises: PaiBenchError with the name of a parameter or buffer without a shape.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)):
            owner = name.rpartition(".")[0]
            raise PaiBenchError(f"layer {owner} has no {name.rpartition('.')[2]} yet", "call the model once on a batch")


def _texts(patterns: Patterns) -> tuple[str, ...]:
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns) if isinstance(patterns, Iterable) else None
    if found is None or not all(isinstance(pattern, str) for pattern in found):
        raise PaiBenchError(
            f"only or exclude is {patterns!r}", 'pass names or patterns of layers, for instance only=["fc", "layer4.*"]'
        )
    return found


def _matches(name: str, pattern: str) -> bool:
    """Return True if a pattern matches a parameter, its layer, or a module that contains the layer."""
    while name:
        if fnmatchcase(name, pattern):
            return True
        name = name.rpartition(".")[0]
    return False
