"""Measurement of the forms of one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError
from pai_bench.results import speeds
from pai_bench.speed import forms, timing


def measured(
    built: list[forms.Form], name: str, setting: speeds.Setting, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[speeds.FormSpeed, ...]:
    """Time the forms of the model `name` in turn on random inputs of `shape` (without the batch dimension).

    Raises: PaiBenchError if a form cannot be run.
    """
    device = next(built[0].model.parameters()).device
    x = torch.randn(setting.batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    try:
        peaks = [timing.peak_bytes(form.model, x) for form in built]
        times = timing.interleaved([form.model for form in built], x, setting.rounds)
    except torch.OutOfMemoryError:
        raise PaiBenchError(f"{name} does not fit in the memory of the device", "lower --batch-size") from None
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        raise PaiBenchError(f"a pass of {name} in {setting.dtype} fails: {line}", "choose another --dtype") from error
    return tuple(
        speeds.FormSpeed(
            form=form.name,
            **dict(zip(("seconds_low", "seconds", "seconds_high"), time.seconds, strict=True)),
            **dict(zip(("ratio_low", "ratio", "ratio_high"), time.ratio, strict=True)),
            repeats=time.repeats,
            parameters=form.parameters,
            flops=form.flops,
            peak_bytes=peak,
        )
        for form, time, peak in zip(built, times, peaks, strict=True)
    )


def forms_of(
    names: tuple[str, ...],
    network: nn.Module,
    masks: Mapping[str, Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[list[forms.Form], dict[str, str]]:
    """Return the forms of a network, and the reasons of those that it does not have."""
    built, absent = [], {}
    for name in names:
        try:
            built.append(forms.build(name, network, masks, shape, device, dtype))
        except PaiBenchError as error:
            if name in ("dense", "masked"):
                raise
            absent[name] = error.cause
    return built, absent


def narrow_forms(
    names: tuple[str, ...],
    wide: nn.Module,
    narrow: nn.Module,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[list[forms.Form], dict[str, str]]:
    """Return the network of full width as "dense" and the narrower one, which has no masks, as "shrunk"."""
    found = [forms.build("dense", model, {}, shape, device, dtype) for model in (wide, narrow)]
    built = [found[0], *([replace(found[1], name="shrunk")] if "shrunk" in names else [])]
    return built, {name: "a narrower dense network has no masks" for name in names if name not in ("dense", "shrunk")}
