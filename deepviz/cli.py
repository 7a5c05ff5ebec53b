"""The command line: flags → ``Settings``, the plan on the screen, errors as one line."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn

from deepviz import __version__
from deepviz.errors import DeepvizError, SettingsError
from deepviz.settings import (
    COMMAND_FLAGS,
    GROUPS,
    Settings,
    describe_default,
    describe_range,
    value_type,
)

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
EXIT_SIGNAL = 128  # plus the signal's number, as a shell reports it

DESCRIPTION = "Turn a song into a music video painted by a generative network."
EXAMPLES = """examples:
  python visualize.py --song x.mp3                                  the whole song at 512 by 512
  python visualize.py --song x.mp3 --model cppn --resolution 256    with the built-in network
  python visualize.py --song x.mp3 --output_file sheet.png          judge the settings in seconds
  python visualize.py --song x.mp3 --duration 10                    a trial, then all of it:
  python visualize.py --song x.mp3 --use_previous_vectors
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        Exit code: 0 done, 1 failed, 2 wrong flags, 130 interrupted, 143 told to end.
    """
    _tolerate_odd_names()
    _end_cleanly_when_told()
    show_traceback = False
    try:
        flags = vars(build_parser().parse_args(arguments))
        show_traceback = flags.pop("debug")
        wanted = flags.pop("list_classes", None)
        if wanted is not None:
            return _list_classes(wanted)
        if "song" not in flags:
            raise SettingsError("--song is missing: which audio file is to be shown?")
        names = flags.pop("song")
        settings = Settings(song=names[0], **flags)
        with _messages_to_screen():
            return _render(names, settings)
    except KeyboardInterrupt:
        print("deepviz: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Stopped as stopped:
        print(f"deepviz: stopped by {stopped.signal.name}", file=sys.stderr)
        return EXIT_SIGNAL + stopped.signal
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        if isinstance(error, DeepvizError):
            print(f"deepviz: error: {_one_line(error)}", file=sys.stderr)
            return error.exit_code
        name = type(error).__name__
        print(
            f"deepviz: error: {name}: {_one_line(error)} (a fault of deepviz's own: "
            "please report it, with what --debug prints)",
            file=sys.stderr,
        )
        return EXIT_FAILED


class Stopped(BaseException):
    """The system or another program told this one to end."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


def _end_cleanly_when_told() -> None:
    """Make SIGTERM, and SIGHUP where it is not ignored, clean up as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong flag is an error as any other: one line, no usage before it."""
        raise SettingsError(f"{message} (--help lists the flags)")


def build_parser() -> argparse.ArgumentParser:
    """A parser with a flag for each setting, grouped, and those of the command itself.

    Flags that are not given are left out of the result: their defaults are ``Settings``' own.
    """
    parser = _Parser(
        prog="visualize.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for spec in fields(Settings):
        names = [f"-{spec.metadata['short']}"] if "short" in spec.metadata else []
        groups[spec.metadata["group"]].add_argument(
            *names, f"--{spec.name}", help=_help(spec), **_how_to_parse(spec)
        )
    groups["look"].add_argument(
        "--list_classes", nargs="?", const="", metavar="TEXT", help=COMMAND_FLAGS["list_classes"]
    )
    groups["output"].add_argument(
        "--debug", action="store_true", default=False, help=COMMAND_FLAGS["debug"]
    )
    groups["output"].add_argument(
        "--version", action="version", version=__version__, help=COMMAND_FLAGS["version"]
    )
    return parser


def _how_to_parse(spec: Any) -> dict[str, Any]:
    """argparse's keywords for one setting."""
    kind = value_type(spec)
    if kind is bool:
        # 0 or 1, as the flags always were; without a value they mean 1
        return {"nargs": "?", "const": True, "type": _zero_or_one, "metavar": "0|1"}
    how: dict[str, Any] = {"type": kind}
    if spec.metadata.get("many") or spec.metadata.get("several"):
        how["nargs"] = "+"
    if "choices" in spec.metadata:
        how["metavar"] = "{" + ",".join(spec.metadata["choices"]) + "}"
    else:
        how["metavar"] = spec.metadata.get("metavar", "X" if kind is float else spec.name.upper())
    return how


def _zero_or_one(text: str) -> bool:
    if text not in ("0", "1"):
        raise argparse.ArgumentTypeError(f"takes 0 or 1, not {text!r}")
    return text == "1"


def _help(spec: Any) -> str:
    notes = []
    if describe_range(spec) and "choices" not in spec.metadata:
        notes.append(describe_range(spec))
    if describe_default(spec):
        notes.append(f"default: {describe_default(spec)}")
    if spec.default is MISSING:
        notes.append("required")
    text = spec.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
    return text.replace("%", "%%")


def _render(names: Sequence[str], settings: Settings) -> int:
    """Render one song, or several with a summary; the exit code."""
    from deepviz.batch import find_songs, render_songs, summarise
    from deepviz.pipeline import render

    if len(names) == 1 and not Path(names[0]).is_dir():
        render(settings)
        return 0
    outcomes = render_songs(find_songs(names), settings)
    print("\n" + "\n".join(summarise(outcomes)))
    return EXIT_FAILED if any(outcome.error for outcome in outcomes) else 0


def _list_classes(text: str) -> int:
    from deepviz.classes import find_classes

    found = list(find_classes(text))
    for number, label in found:
        print(f"{number:3d}  {label}")
    if not found:
        print(f"deepviz: error: no class has {text!r} in its name", file=sys.stderr)
        return EXIT_FAILED
    return 0


class _Screen(logging.Handler):
    """The plan goes to standard output, warnings to standard error, neither through a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        if record.levelno >= logging.WARNING:
            message = f"deepviz: {record.levelname.lower()}: {record.getMessage()}"
            tqdm.write(message, file=sys.stderr)
        else:
            tqdm.write(record.getMessage(), file=sys.stdout)


@contextmanager
def _messages_to_screen() -> Iterator[None]:
    logger, handler = logging.getLogger("deepviz"), _Screen()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _tolerate_odd_names() -> None:
    """A file name that the terminal's encoding lacks is shown escaped instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
