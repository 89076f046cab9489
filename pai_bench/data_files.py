"""Earlier import path of plug-ins with data sets; it stays, because the text of a plug-in is part of its results."""

from pai_bench.datasets.files import *  # noqa: F403
from pai_bench.datasets.files import __all__ as __all__
