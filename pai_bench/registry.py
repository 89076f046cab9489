"""Earlier import path of plug-ins with methods; it stays, because the text of a plug-in is part of its results."""

from pai_bench.scoring.registry import register

__all__ = ["register"]
