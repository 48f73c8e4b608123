"""A command line to its settings, and errors to a line each, where tyro draws a box."""

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from jaxsr import streams
from jaxsr.errors import InputError, within_memory

Settings = TypeVar("Settings")
T = TypeVar("T")
INTERRUPTED = 130

# What a setting is that may be left out: its description, not `None`, says what holds then.
Given = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
Listed = Annotated[tuple[T, ...], tyro.conf.arg(help_behavior_hint="")]  # likewise, empty

_CONFIG = (tyro.conf.DisallowNone,)  # `--sigma None` is no number
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ROW = re.compile(r"[│ ] (.*?) *│?")  # of a box, also of one in ASCII
_RULE = re.compile(r"─*|-*")  # or an empty row: they part a box's sections
_CHOICES = re.compile(r"(?<=Expected one of \(')[^()]*(?='\))")
_HELP = ("Argument helptext", "For full helptext", "Got errors")
_INDENT = 8  # of an option's description, below the option
_NAME = re.compile(r"`(\w+)` \(=")


def main(
    settings: type[Settings],
    run: Callable[[Settings], int],
    args: Sequence[str] | None,
    *,
    stopped: str = "stopped",
) -> int:
    """Parse the command line and run; returns the exit code.

    After one line: 2 on bad input or where the operating system refuses, INTERRUPTED on Ctrl-C. On
    a GPU JAX takes memory as it needs it, unless the environment says otherwise: by default it
    would take three quarters at once, and leave other processes, and PyTorch, the rest. It never
    takes more than these, but where `XLA_CLIENT_MEM_FRACTION` says so.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as the command's package has left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with streams.unfailing() as unwritten:
        try:
            parsed = parse(settings, args)
            with within_memory("the work"):
                code = run(parsed)
            if not code and (error := unwritten()):
                raise error
            return code
        except SystemExit:  # of `--help`
            if not (error := unwritten()):
                raise
            print(f"error: {refused(error)}", file=sys.stderr)
        except InputError as error:
            said = as_option(str(error), settings).replace("\n", "\\n")  # of a file's name
            print(f"error: {said}", file=sys.stderr)
        except OSError as error:
            print(f"error: {refused(error)}", file=sys.stderr)
        except KeyboardInterrupt:
            print(stopped, file=sys.stderr)
            return INTERRUPTED
        return 2


def parse(settings: type[Settings], args: Sequence[str] | None) -> Settings:
    """The settings that `args` ask for, the program's own where None; `--help` ends the program.

    Raises:
      InputError: they ask for what there is not, or lack what is needed.
    """
    module = sys.modules["__main__"].__spec__
    prog = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(settings, args=args, prog=prog, config=_CONFIG)
    except SystemExit as end:
        if not end.code:
            raise
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit), _wide_terminal():
        tyro.cli(settings, args=args, prog=prog, config=_CONFIG)
    raise InputError(_one_line(said.getvalue()))


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """In which no row of a box is broken."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def option(name: str) -> str:
    """A setting's name as the command line has it."""
    return f"`--{name.replace('_', '-')}`"


def as_option(message: str, settings: Any) -> str:
    """An error's line with the name of the option where it quotes a setting by Python's."""
    found = _NAME.match(message)
    if not found or found[1] not in {field.name for field in dataclasses.fields(settings)}:
        return message
    return option(found[1]) + message[found.end(1) + 1 :]


def refused(error: OSError) -> str:
    """What the operating system refuses, in a line."""
    what = "the output" if error.filename is None else f"`{error.filename}`"
    return f"{what} cannot be used: {error.strerror or error}"


def _one_line(box: str) -> str:
    """What a box says, without its title, the help and how to get it."""
    rows = map(_ROW.fullmatch, _COLOUR.sub("", box).splitlines())
    sections: list[list[str]] = [[]]
    for text in (row[1] for row in rows if row):
        if _RULE.fullmatch(text):
            sections.append([])
        elif not text.startswith(_INDENT * " "):
            sections[-1].append(text)
    told = [_sentence(rows) for rows in sections if rows and not rows[0].startswith(_HELP)]
    return "; ".join(told) or box


def _choices(quoted: str) -> list[str]:
    return sorted(choice for choice in quoted.split("', '") if choice != "None")


def _sentence(section: Sequence[str]) -> str:
    """Lines of text as one; options, which are indented, after it."""
    text = " ".join(row for row in section if not row.startswith(" "))
    options = ", ".join(row.strip() for row in section if row.startswith(" "))
    # The choices of an option that may be left out come in no order, and with the `None` that it
    # does not take.
    text = _CHOICES.sub(lambda found: "', '".join(_choices(found[0])), text)
    return f"{text} {options}".strip()
