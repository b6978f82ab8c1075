"""Ask the study database, or make it anew from the files of the study."""

import argparse
from importlib import import_module

# Each a module beside this one, in database/.
COMMANDS = (
    "populate",
    "query",
    "leaderboard",
    "sweep",
    "compare",
    "config-diff",
    "dataset",
    "export",
    "browse",
    "track",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")
    for name in COMMANDS:
        module = import_module(f"pipeline.commands.database.{name.replace('-', '_')}")
        summary = str(module.__doc__).splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(answer=module.run)


def run(args: argparse.Namespace) -> int | None:
    return args.answer(args)
