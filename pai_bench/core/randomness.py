"""Seeds for each purpose, derived from the cell's seed, and the state of the global random generators.

This module is the only place that saves, restores or compares the state of global generators.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *more: int) -> int:
    """Derive the seed in [0, 2^64) of the draws for `purpose` ("init", "order", …) and `more` (the epoch, the round).

    The seeds spread over all 64 bits: draws for neighbouring seeds or for different purposes share no stream.
    """
    # A slash inside a purpose is doubled, so that it cannot be taken for a separator.
    text = "/".join([str(int(seed)), purpose.replace("/", "//"), *(str(int(number)) for number in more)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def random_state(*devices: torch.device) -> Callable[[], None]:
    """Save the state of the global generators of Python, NumPy, torch and `devices`; return a function to restore it.

    A forward pass may draw from any of these generators. Devices other than CUDA devices have no generator of their
    own.
    """
    host, python, legacy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    accelerators = [(torch.cuda.get_rng_state(device), device) for device in devices if device.type == "cuda"]

    def restore() -> None:
        torch.set_rng_state(host)
        random.setstate(python)
        np.random.set_state(legacy)
        for state, device in accelerators:
            torch.cuda.set_rng_state(state, device)

    return restore


@contextmanager
def own_randomness(*devices: torch.device) -> Iterator[None]:
    """Restore the state of the global generators, including the generators of `devices`, when the context ends."""
    restore = random_state(*devices)
    try:
        yield
    finally:
        restore()


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the host inside the context, and restore its state when the context ends."""
    before = torch.get_rng_state()
    try:
        # torch.manual_seed would also seed the generators of the accelerators, which are not restored here.
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.set_rng_state(before)


def seed_draws(seed: int, *devices: torch.device) -> None:
    """Seed the generators that a forward pass on `devices` may draw from."""
    random.seed(seed)
    # NumPy's legacy generator accepts only seeds of 32 bits.
    np.random.seed(seed % 2**32)
    # torch.manual_seed would also register the seed with every kind of device that is not in use, which takes most of
    # a millisecond.
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            torch.cuda.default_generators[index].manual_seed(seed)


def host_random_state() -> tuple[Any, ...]:
    """Return the state of the global generators on the host, comparable with ==."""
    legacy = np.random.get_state(legacy=False)["state"]
    return random.getstate(), legacy["pos"], legacy["key"].tobytes(), torch.get_rng_state().numpy().tobytes()


def global_random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators by the name of their library, comparable with ==."""
    python, position, key, host = host_random_state()
    states = {"Python (random)": python, "NumPy (numpy.random)": (position, key), "torch (CPU)": host}
    if device.type == "cuda":
        states["torch (CUDA)"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return states
