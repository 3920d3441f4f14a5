"""The command line: parse arguments, call one function of the library, print the result.

`COMMANDS` maps each command to a function in one of the modules of this package, which contain no other logic. A command imports
only the parts of the library that it needs, and torch only if it computes with it.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys

from trichord.cli.launch import check_launch, end_at_once_if_launched, is_launched, loss_of_others, reports_errors
from trichord.cli.output import lasting_output
from trichord.cli.stopping import Stopped, stopping_on_signals
from trichord.errors import TrichordError, disk_error, memory_error, one_line, printable
from trichord.logs import printing_messages

USAGE = """\
usage: trichord COMMAND [ARGUMENTS] [--debug]

In which order should video, audio and text be combined? Train in stages and compare the orders.

commands:
  demo       render the built-in world, run the study on it and print the order table
  world      write the built-in world: narrated how-to videos as real files
  import     bring published features or data into a store: howto100m, youcook2, msrvtt, lsmdc, crosstask,
             mining-youtube, actions, world-steps, stamps, webdataset, npy
  extract    extract features of a folder of narrated videos, or of a table of clips, into a store
  train      train one order, such as av>t
  freeze     compute the embeddings that later stages will read in advance, also on other machines or on Ray
  evaluate   score a model, a published checkpoint or a file of embeddings on the benchmarks of the field
  study      train and compare orders, and print the order table
  report     write a report of a study (intervals, comparisons, curves, the joint space), or of the differences between two
  export-model  write a trained model as a folder that others can use: weights, encoders, words, model card
  embed      embed files with an exported model, and write a file of embeddings
  reproduce  repeat a diverged training step, and report where the numbers become infinite or NaN
  store      inspect, verify or export a store: info STORE, verify STORE, export STORE --out DIR
  doctor     check the installation, and show the commands that install missing parts

example, from videos to the table:
  trichord extract my_videos --store my_store
  trichord study --store my_store --out my_study --recipe small

`trichord COMMAND --help` explains a command; --version prints the version; --debug shows tracebacks."""


COMMANDS = {  # module and function of each command; the module is imported when the command is called
    "demo": "training:demo",
    "world": "data:world",
    "import": "data:import_",
    "extract": "data:extract",
    "train": "training:train",
    "freeze": "training:freeze",
    "evaluate": "scoring:evaluate",
    "study": "training:study",
    "report": "scoring:report",
    "export-model": "models:export_model",
    "embed": "models:embed",
    "reproduce": "training:reproduce",
    "store": "data:store",
    "doctor": "scoring:doctor",
}
CONTINUING = (
    "demo",
    "world",
    "import",
    "extract",
    "freeze",
    "study",
)  # commands that keep finished work when they are stopped
PRINTING = ("evaluate", "reproduce", "store", "doctor")  # commands whose result is their output


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words of the command line; None uses those of the process.

    Returns:
        The exit code: 0; 2 after an error, which is printed to standard error in one line; 128 + N after signal N.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    with lasting_output(until_exit=argv is None) as lost_output, printing_messages():
        code = _guarded(arguments, debug)
        if reason := lost_output():
            prints_only = not arguments or arguments[0].startswith("-") or arguments[0] in PRINTING
            print(f"trichord: {'error' if prints_only else 'warning'}: {reason}", file=sys.stderr)
            code = max(code, 2 * prints_only)
        if argv is None and code == 0:
            end_at_once_if_launched()
        return code


def _guarded(words: list[str], debug: bool) -> int:
    """Run one command; errors are printed in one line and give an exit code, unless `debug`."""
    try:
        if is_launched():  # without a handler, the signals of the launcher also end a process that waits for others
            return _run(words)
        with stopping_on_signals():
            return _run(words)
    except TrichordError as error:
        return _fail(error, debug)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        if reports_errors():
            cause = f"stopped by {signal.Signals(number).name}" if isinstance(error, Stopped) else "interrupted"
            print(f"trichord: {cause}; {_next_command(words)}", file=sys.stderr, flush=True)
        return 128 + number
    except Exception as error:
        if known := disk_error(error) or memory_error(error) or loss_of_others(error) or _system_error(error):
            return _fail(known, debug, error)
        return _fail(
            f"internal error: {type(error).__name__}: {error}; please report it with the traceback that --debug prints",
            debug,
            error,
        )


def _next_command(words: list[str]) -> str:
    """Return the advice for continuing after an interruption."""
    if words[:1] == ["train"]:
        resuming = words if "--resume" in words else [*words, "--resume"]
        return f"to continue, run: {printable(shlex.join(['trichord', *resuming]))}"
    if words and words[0] in CONTINUING:
        return "run the same command again to continue"
    return "run the same command again"


def _system_error(error: Exception) -> TrichordError | None:
    """Return the error to print for an error of the operating system that the command did not handle; None for other errors."""
    if not isinstance(error, OSError):
        return None
    from trichord.files.faults import fault_of, reason_of
    from trichord.files.reading import unreadable

    if isinstance(error.filename, str | os.PathLike):
        return unreadable(os.fspath(error.filename), error)
    if fault_of(error) and not isinstance(error, ConnectionError):
        return TrichordError(
            f"the operating system reported an error ({reason_of(error)}); fix its cause, then run the command again"
        )
    return None


def _fail(message: object, debug: bool, error: Exception | None = None) -> int:
    if debug:
        raise error if error is not None else message  # type: ignore[misc]
    if reports_errors():
        print(f"trichord: error: {printable(one_line(message))}", file=sys.stderr, flush=True)
    return 2


def _check_current_folder() -> None:
    """Raise TrichordError if the current folder was removed: relative paths do not work there, and torch cannot be imported."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise TrichordError("the current folder no longer exists; change to another folder") from None


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, flush=True)
        return 0
    command, *rest = words
    if command == "--version":
        from importlib.metadata import version

        print(f"trichord {version('trichord')}", flush=True)
        return 0
    if command not in COMMANDS:
        raise TrichordError(f"unknown command '{command}'; expected one of {', '.join(COMMANDS)} (see trichord --help)")
    check_launch()
    _check_current_folder()
    from importlib import import_module

    from trichord.cli.bus_error import bus_errors_named

    module, _, name = COMMANDS[command].partition(":")
    with bus_errors_named():
        return getattr(import_module(f"trichord.cli.{module}"), name)(rest) or 0
