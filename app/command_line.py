"""What the commands have in common: flags for settings, and one sentence for what goes wrong."""

import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from app.settings import PREFIX, Settings, SettingsError, environment_warnings, flag_of, read_settings
from model import FashionNetError

INTERRUPTED = 130
"""The exit status that shells report for a command that Ctrl-C ends."""


def command_parser(command: str, description: str | None) -> ArgumentParser:
    """Returns the parser of ``fashionnet COMMAND``, whose help keeps the lines of the description."""
    return ArgumentParser(
        prog=f"fashionnet {command}", description=description, formatter_class=RawDescriptionHelpFormatter
    )


def add_settings(parser: ArgumentParser, *fields: str, helps: Mapping[str, str] | None = None) -> None:
    """Add a flag for each of these settings; without the flag, the environment decides.

    Args:
        parser: gets the flags.
        fields: names of settings.
        helps: help texts of fields that mean something else here than in the service.
    """
    for field in fields:
        info = Settings.model_fields[field]
        choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else None
        parser.add_argument(
            flag_of(field),
            choices=choices,
            metavar=None if choices else field.rsplit("_", maxsplit=1)[-1].upper(),
            help=f"{(helps or {}).get(field, info.description)} ({PREFIX}{field.upper()})",
        )


def add_renamed(parser: ArgumentParser, old: str, new: Action) -> None:
    """Accepts the flag ``old`` for ``new``, an action of the parser, with a warning. Help does not list ``old``."""

    class Renamed(Action):
        def __call__(self, *arguments: Any, **_: Any) -> None:
            print(f"warning: {old} is deprecated: use {new.option_strings[0]}.", file=sys.stderr)
            new(*arguments)

    parser.add_argument(
        old,
        action=Renamed,
        dest=new.dest,
        nargs=new.nargs,
        type=new.type or str,
        choices=new.choices,
        default=SUPPRESS,
        help=SUPPRESS,
    )


def settings_of(arguments: Namespace) -> Settings:
    """Returns the settings of the command line and the environment; raises SettingsError."""
    flags = {field: getattr(arguments, field, None) for field in Settings.model_fields}
    return read_settings({field: value for field, value in flags.items() if value is not None})


def run(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit status: 2, after one sentence on stderr, for an expected error."""
    try:
        for sentence in environment_warnings():
            print(f"warning: {sentence}", file=sys.stderr)
        return command()
    except (FashionNetError, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
