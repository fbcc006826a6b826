"""Where the value of a command's parameter comes from, for messages: its flag or its variable."""

from __future__ import annotations

import os
import re

import click
from click.core import ParameterSource


def source_of(name: str) -> str:
    """Return the flag or the variable that a parameter's value comes from.

    Args:
        name: Name of the parameter, such as ``web_config_file``.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return f"--{name.replace('_', '-')}"
    option = next(option for option in context.command.params if option.name == name)
    if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        return next(variable for variable in option.envvar or () if os.environ.get(variable))
    return option.opts[0]


def with_variable(text: str) -> str:
    """Return an error's text, with the variable in place of the flag at its beginning if the value comes from there."""
    context, match = click.get_current_context(silent=True), re.match(r"--[\w.-]+", text)
    if context is None or match is None:
        return text
    names = [option.name or "" for option in context.command.params if match[0] in option.opts]
    return source_of(names[0]) + text.removeprefix(match[0]) if names else text
