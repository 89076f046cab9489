"""One seed for each purpose, all derived from the cell's."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *more: int) -> int:
    """The seed in [0, 2^64) of the draws for `purpose` ("init", "order", …) and `more` (the epoch, the round).

    A pure function that spreads over all 64 bits: neighbouring seeds and other purposes share no stream.
    """
    text = "/".join([str(int(seed)), purpose.replace("/", "//"), *(str(int(number)) for number in more)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """The global generators, Python's and NumPy's too, are afterwards as they were before."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed the generators that a forward pass on `device` may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def random_state(device: torch.device) -> Callable[[], None]:
    """Note where the global random streams stand, which a forward pass may draw from; a call of the result puts them
    back there."""
    host, python, legacy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    accelerator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        torch.set_rng_state(host)
        random.setstate(python)
        np.random.set_state(legacy)
        if accelerator is not None:
            torch.cuda.set_rng_state(accelerator, device)

    return restore
