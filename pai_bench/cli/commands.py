"""A command that refuses empty values, and an option of one value that is given twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand

from pai_bench.errors import PaiBenchError

_FILTER = "filter_"
_EXAMPLES = {
    **{"methods": "snip,erk", "controls": "shuffle,reinit", "datasets": "digits,mnist", "models": "conv8,resnet20"},
    **{"recipes": "quick,frankle", "sparsities": "0.9,0.98", "densities": "0.1,0.02", "compressions": "10,50"},
    **{"budgets": "30,45", "seeds": "0,1", _FILTER: "method=snip,seed<3"},
}
"""The parameters of sweep (`--filter`: of every command) whose value is a list, and one such list."""


class Command(TyperCommand):
    """A command without empty values, whose options do not silently take a second value for the first."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments of the command line.

        Raises: PaiBenchError for an empty value, and for an option of one value that is given twice.
        """
        # While a shell completes a line, an unfinished value is not an error.
        if not ctx.resilient_parsing:
            # The parser runs a second time, because the parsed values do not show that an option was given twice.
            values, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in dict.fromkeys(given):
                _refuse_empty(parameter, values[parameter.name])
            self._check_counts(Counter(given))
        return super().parse_args(ctx, args)

    def _check_counts(self, given: Counter[Any]) -> None:
        for parameter, count in given.items():
            if count == 1 or parameter.param_type_name != "option" or parameter.multiple or parameter.is_flag:
                continue
            option = parameter.opts[0]
            times = "twice" if count == 2 else f"{count} times"
            is_list = parameter.name == _FILTER or self.name == "sweep"
            example = _EXAMPLES.get(str(parameter.name)) if is_list else None
            raise PaiBenchError(
                f"{option} was given {times}",
                f"give {option} once" if example is None else f"write all values in one list: {option} {example}",
            )


def _refuse_empty(parameter: Any, value: Any) -> None:
    """Refuse an empty text, for which paths would become the working folder, and lists the default."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(item, str) and not item.strip() for item in values):
        is_option = parameter.param_type_name == "option"
        raise PaiBenchError(
            f"{parameter.opts[0] if is_option else f'argument {parameter.name}'} is empty",
            "give a value" + (", or leave the option out" if is_option else ""),
        )
