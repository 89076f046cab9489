"""The program: its commands, error messages and exit codes."""

from __future__ import annotations

import codecs
import errno
import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from typer.exceptions import TyperException

from pai_bench import __version__
from pai_bench.cli import config, data, hints, is_interrupt
from pai_bench.cli.cancel import cancel
from pai_bench.cli.cell import prune, train
from pai_bench.cli.commands import Command
from pai_bench.cli.compare_masks import compare_masks
from pai_bench.cli.doctor import doctor
from pai_bench.cli.listing import list_
from pai_bench.cli.logs import logs
from pai_bench.cli.merge import merge
from pai_bench.cli.options import INTERRUPTED, OK, USAGE, messages, say
from pai_bench.cli.report import report
from pai_bench.cli.reproduce import reproduce
from pai_bench.cli.speed import speed
from pai_bench.cli.status import status
from pai_bench.cli.sweep import sweep
from pai_bench.errors import PaiBenchError

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Benchmark suite for pruning at initialisation: run a sweep, then make its report.",
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


app.command(cls=Command)(sweep)
app.command(cls=Command)(status)
app.command(cls=Command)(logs)
app.command(cls=Command)(cancel)
app.command(cls=Command)(report)
app.command(cls=Command)(merge)
app.command(cls=Command)(compare_masks)
app.command(cls=Command)(speed)
app.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(reproduce)
app.command(cls=Command)(doctor)
app.command(cls=Command)(prune)
app.command(cls=Command)(train)
app.command("list", cls=Command)(list_)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")


PLAIN = "pai-bench-plain"
"""Name of the error handler that replaces characters missing in a stream's encoding by ASCII text, or else "?"."""

_ASCII = {"·": "-", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "×": "x", "±": "+-", "━": "-", "═": "="}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN, _plain)


_KEPT = {
    **dict.fromkeys(("sweep", "reproduce", "train", "merge"), "finished cells"),
    "data fetch": "downloaded parts of files",
    "speed": "measurements of finished networks",
}
"""Files that an interrupted command keeps, by command."""


def _explain(error: OSError) -> tuple[str, str]:
    """Return cause and remedy of an error of the operating system."""
    from pai_bench.core.atomic import reason

    what = error.filename or error
    if isinstance(error, PermissionError):
        return f"permission denied for {what}", "choose another folder (--results, --out) or change its permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            reason(error) if error.filename is None else f"{reason(error)}: {what}",
            "free space or raise the quota (or name another folder: --results, --data-dir, --out), then run the command"
            " again: finished results are safe",
        )
    return (
        reason(error) if error.filename is None else f"{reason(error)}: {what}",
        "check that the disk responds and has free space, then run the command again: finished results are safe"
        " (-v shows the traceback)",
    )


def _misused(error: TyperException) -> int:
    """Print the error in the arguments; return the exit code."""
    say(f"error: {error.format_message()}")
    context = getattr(error, "ctx", None)
    name = getattr(error, "option_name", None)
    remedy = hints.option(name, str(context.command.name)) if name and context else None
    say(f"  {remedy or f'see {context.command_path} --help'}" if context else "  see pai-bench --help")
    return USAGE


def _failed(error: PaiBenchError | TyperException | OSError, verbose: bool) -> int:
    """Print cause and remedy; return the exit code."""
    if isinstance(error, TyperException):
        if type(error).__name__ == "NoArgsIsHelpError":  # a command group without a command: its help was the message
            typer.echo(error.format_message())
            return OK
        return _misused(error)
    if verbose:
        messages().print_exception()
    cause, remedy = (error.cause, error.remedy) if isinstance(error, PaiBenchError) else _explain(error)
    say(f"error: {cause}")
    say(f"  {remedy}")
    return USAGE


def main() -> None:
    """Run the command line; an error is printed as cause and remedy, with a traceback only under -v."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # In a locale without Unicode, a message with a dash or an ellipsis would otherwise raise an error.
            stream.reconfigure(errors=PLAIN)
    # The option is looked up here, because an error may end the parsing before it is reached.
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    code: int | None = OK
    try:
        # In standalone mode, typer would print errors in its own form and choose the exit codes.
        code = app(standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, typer.Abort) or is_interrupt(error):
            code = INTERRUPTED
        elif isinstance(error, PaiBenchError | TyperException | OSError):
            code = _failed(error, verbose)
        else:
            raise
    if code == INTERRUPTED:
        words = [argument for argument in sys.argv[1:] if not argument.startswith("-")][:2]
        kept = _KEPT.get(words[0] if words else "") or _KEPT.get(" ".join(words))
        say("interrupted" + (f": {kept} are kept; the same command resumes from here" if kept else ""))
    sys.exit(code or 0)
