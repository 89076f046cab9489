"""One thread for every test: two threads on two busy cores wait for each other more than they work."""

import signal
from pathlib import Path

import pytest
import torch

from pai_bench.core import plugins
from pai_bench.datasets.files import sources
from pai_bench.models import registry as models
from pai_bench.scoring import registry as methods
from tests.disk import Disk

torch.set_num_threads(1)

# A process that a shell started in the background ignores Ctrl-C, and so would the programs that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that is not the user's."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the methods, models, data sets, and plug-ins that a test registers."""
    for registry in (methods._methods, models._builders, sources.CATALOGUE):
        registry.discover()
        monkeypatch.setattr(registry, "_things", dict(registry._things))
    for module, name in ((methods, "_facts"), (methods, "_given"), (plugins, "_plugins")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk whose files cannot be read when a test wants it so."""
    return Disk(monkeypatch)
