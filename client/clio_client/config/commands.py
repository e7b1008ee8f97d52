"""A command line of several commands as one parser: what completion and manual pages are made from.

Programs read the first argument themselves, so that a command is imported only when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Command:
    """What stands after the program's name.

    Attributes:
        help: what it does, in a line.
        load: its two halves: one adds its arguments to a parser, one runs it and returns the exit status.
    """

    help: str
    load: Callable[[], tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]]


def run(program: str, name: str, command: Command, arguments: list[str]) -> int:
    """Run a command with the arguments after its name; returns the exit status."""
    add, do = command.load()
    parser = argparse.ArgumentParser(prog=f"{program} {name}", allow_abbrev=False)
    add(parser)
    return do(parser.parse_args(arguments))


def whole(parser: argparse.ArgumentParser, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of a program, with its commands added: to be shown, not to parse with."""
    below = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in commands.items():
        add, _run = command.load()
        add(below.add_parser(name, help=command.help))
    return parser


def completion(make: Callable[[], argparse.ArgumentParser]) -> Command:
    """The command that prints a shell's completion of the program whose whole parser is made."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.description = "Print what makes a shell complete this command."
        parser.epilog = (
            'bash: eval "$(PROGRAM completion bash)" in ~/.bashrc; docs/configuration.md has the rest.'
        )
        parser.add_argument("shell", choices=SHELLS, help="the shell")

    def do(args: argparse.Namespace) -> int:
        print(completion_script(make(), args.shell))
        return 0

    return Command("print what makes a shell complete this command", lambda: (add, do))


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion of `parser`, for one of `SHELLS`; names of files where an argument is one."""
    import shtab

    for action in _actions(parser):
        kind = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}.get(str(action.metavar))
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
