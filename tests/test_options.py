"""`jaxsr.options`: what is wrong with a command line is one line, whatever tyro draws."""

import dataclasses
import io
import pathlib
import sys
from typing import Literal

import pytest

from jaxsr import options
from jaxsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program may be told."""

    out: pathlib.Path
    """Where the results go."""
    loss: options.Given[Literal["mse", "l1", "huber"]] = None
    """One by its name."""
    learning_rate: float = 0.01
    """Of Adam, which is a long story that needs more than one row of the box that tyro draws."""
    sizes: tuple[int, ...] = ()
    """Of the images."""


def test_a_line_becomes_settings():
    line = ["--out", "a", "--loss", "l1", "--learning-rate", "0.5", "--sizes", "64", "128"]
    assert options.parse(Settings, line) == Settings(pathlib.Path("a"), "l1", 0.5, (64, 128))


def test_help_knows_no_none(capsys):
    with pytest.raises(SystemExit) as end:
        options.parse(Settings, ["--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0 and "None" not in told
    assert "--loss {mse,l1,huber}" in told and "(default: 0.01)" in told


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "--out a --loss l2",
            "invalid choice 'l2' for argument '--loss'. Expected one of ('huber', 'l1', 'mse').",
        ),
        ("--loss l1", "Missing from {prog}: --out PATH"),
        (
            "--out a --learning-rats 1",
            "Unrecognized options: --learning-rats, 1; Perhaps you meant: --learning-rate FLOAT",
        ),
        ("--out a photo.png", "Unrecognized options: photo.png"),
        ("--out a " + "/deep" * 40, "Unrecognized options: " + "/deep" * 40),
        ("--out a ('a'b') ('c')", "Unrecognized options: ('a'b'), ('c')"),
        ("--out a --loss ('b','a')", "invalid choice '('b','a')' for argument '--loss'."),
        ("--out a --learning-rate", "Missing value for argument '--learning-rate'."),
        ("--out a --learning-rate fast", "Error parsing --learning-rate: "),
        ("--out a --sizes 64 x", "Error parsing --sizes: "),
        ("--out a --loss None", "Error parsing --loss: "),
    ],
)
@pytest.mark.parametrize("terminal", ["file", "terminal", "ascii"])
def test_what_is_wrong_is_one_line(monkeypatch, capsys, line, said, terminal):
    class Stream(io.StringIO):
        encoding = "ascii" if terminal == "ascii" else "utf-8"

        def isatty(self):  # where it is coloured
            return terminal == "terminal"

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Stream())
    with pytest.raises(InputError) as error:
        options.parse(Settings, line.split())
    message = str(error.value)
    module = sys.modules["__main__"].__spec__
    prog = f"python -m {module.name.removesuffix('.__main__')}" if module else sys.argv[0]
    assert message.startswith(said.format(prog=prog)) and message.isprintable()
    assert not set("│─╭╮╰╯") & set(message) and "long story" not in message
    assert (capsys.readouterr().err, sys.stdout.getvalue()) == ("", "")


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as end:
        options.parse(Settings, ["--help"])
    assert end.value.code == 0 and "a long story" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("`learning_rate` (=0) must be above 0", "`--learning-rate` (=0) must be above 0"),
        ("`out` (=a) must be new: no `loss` (=l1)", "`--out` (=a) must be new: no `loss` (=l1)"),
        ("`kernel` (=a) must be odd", "`kernel` (=a) must be odd"),
        ("a file is damaged", "a file is damaged"),
    ],
)
def test_a_setting_is_called_by_its_option(message, said):
    assert options.as_option(message, Settings) == said
