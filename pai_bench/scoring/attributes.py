"""Attributes of modules that a forward pass changes, such as cached attention biases."""

from __future__ import annotations

from typing import Any

from torch import nn

from pai_bench.errors import PaiBenchError

_STANDARD = frozenset(vars(nn.Module()))


def reset_after_passes(model: nn.Module) -> None:
    """Restore the attributes of all modules after each forward pass of `model`, by a hook.

    A module may keep a tensor that it computes from its parameters (LeViT does in eval mode). The next pass would use
    it with other parameters, or after its graph has been freed. Buffers that the pass registers are removed.
    Parameters, other buffers, and what lies deeper than the items of a dict, list or set are not restored. The hook
    raises a PaiBenchError where the pass makes parameters or layers, which the masks would lack.
    """
    before = [
        (module, {name: (value, _items(value)) for name, value in vars(module).items() if name not in _STANDARD})
        for module in model.modules()
    ]

    registered = [(module, set(module._buffers), set(module._parameters), set(module._modules)) for module, _ in before]

    def restore(*_: Any) -> None:
        for module, buffers, parameters, layers in registered:
            for name in module._buffers.keys() - buffers:
                del module._buffers[name]
                module._non_persistent_buffers_set.discard(name)
            made = sorted(module._parameters.keys() - parameters | module._modules.keys() - layers)
            if made:
                raise PaiBenchError(
                    f"the forward pass of {type(module).__name__} makes {', '.join(made)}",
                    "make parameters and layers in __init__, or call the model once on a batch before it is scored",
                )
        for module, attributes in before:
            now = vars(module)
            if len(now) != len(_STANDARD) + len(attributes):
                for name in [name for name in now if name not in attributes and name not in _STANDARD]:
                    del now[name]
            for name, (value, items) in attributes.items():
                # `restore` stands for a missing attribute: no module stores it, whereas None may be a stored value.
                if now.get(name, restore) is not value:
                    now[name] = value
                # By identity: `==` of tensors is elementwise and has no single truth value.
                if items is not None and list(map(id, _items(value) or ())) != list(map(id, items)):
                    _refill(value, items)

    # Also after a pass that raises, because the same copy is then used to find the cause.
    model.register_forward_hook(restore, always_call=True)


def _items(value: Any) -> list[Any] | None:
    """Return the items of a container, for a dict its keys and values in turn; None for another object."""
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    return list(value) if isinstance(value, (list, set)) else None


def _refill(value: Any, items: list[Any]) -> None:
    value.clear()
    if isinstance(value, dict):
        value.update(zip(items[::2], items[1::2], strict=True))
    elif isinstance(value, list):
        value.extend(items)
    else:
        value.update(items)
