"""Words of a command line that do not fit its commands, as `InputError`: one line, with what would fit."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from simulator.errors import InputError, nearest

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for words that it cannot take; it gives only the subclass a public name."""


class Commands(TyperGroup):
    """A group whose unknown commands name the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise InputError("no command of this name", value=args[0], allowed=nearest(args[0], known))
        return super().resolve_command(ctx, args)


def whole_number(text: str) -> int:
    """``text`` as an integer. Raises typer.BadParameter."""
    try:
        return int(text)
    except ValueError:
        fault = InputError("not a whole number", value=text, allowed="digits, such as 128")
        raise typer.BadParameter(str(fault)) from None


def in_one_line(error: Any) -> InputError:
    """What a `UsageError` says, with the command, its word, and what is allowed there."""
    message = error.message[:1].lower() + error.message[1:].removesuffix(".")
    parameter, option = getattr(error, "param", None), getattr(error, "option_name", None)
    context = error.ctx
    if context is None:  # an option without its argument, or with one too many
        return InputError(message.removeprefix(f"option {option!r} "), key=option)
    command = context.command_path.partition(" ")[2]
    known = context.command.get_params(context)
    if option is not None:
        names = [name for item in known if item.param_type_name == "option" for name in item.opts]
        return InputError("no such option", key=command or None, value=option, allowed=nearest(option, names))
    if parameter is None:
        words = [command, *(item.metavar for item in known if item.param_type_name == "argument")]
        return InputError(message, key=command or None, allowed=f"{' '.join(words)}, and options")
    is_option = parameter.param_type_name == "option"
    word = f"{command} {' / '.join(parameter.opts) if is_option else parameter.metavar}".lstrip()
    if message:
        return InputError(message, key=word)
    needed = parameter.help.partition(". ")[0].removesuffix(".")
    return InputError(
        f"this {parameter.param_type_name} is missing", key=word, allowed=needed[:1].lower() + needed[1:]
    )
