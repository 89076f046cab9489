"""One thread for every test: two threads on two busy cores wait for each other more than they work."""

import signal
from pathlib import Path

import pytest
import torch

from tests.disk import Disk

torch.set_num_threads(1)

# What a shell starts in the background ignores Ctrl-C, and hands that on to the programs that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that is not the user's."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk whose files cannot be read when a test wants it so."""
    return Disk(monkeypatch)
