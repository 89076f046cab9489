"""Attributes of modules that a forward pass changes, such as cached attention biases."""

from __future__ import annotations

from typing import Any

from torch import nn

_STANDARD = frozenset(vars(nn.Module()))


def reset_after_passes(model: nn.Module) -> None:
    """Restore the attributes of all modules after each forward pass of `model`, by a hook.

    A module may keep a tensor that it computes from its parameters (LeViT does in eval mode). The next pass would use
    it with other parameters, or after its graph has been freed. Parameters, buffers, and what lies deeper than the
    items of a dict, list or set are not restored.
    """
    before = [
        (module, {name: (value, _items(value)) for name, value in vars(module).items() if name not in _STANDARD})
        for module in model.modules()
    ]

    def restore(*_: Any) -> None:
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
