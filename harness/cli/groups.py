"""Help in sections: options are grouped by what they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from harness.system.version import __version__

GROUPS = ("What", "Data and weights", "Recipe", "Search", "Measurement", "Machine", "Tracking", "Output")
"""Sections of a command's help, in their order; options without one come last."""


class Option(click.Option):
    """An option that belongs to a section of the help."""

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert group in ("", *GROUPS), group
        self.group = group


class Command(click.Command):
    """A command whose help shows options by section, with `--version` among them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(version_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section per group, and the rest under `Other`."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
        rest: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                sections.get(getattr(param, "group", ""), rest).append(row)
        for name, rows in [*sections.items(), ("Other", rest)]:
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows)


def version_option() -> click.Option:
    """Shows the version and stops."""

    def show(context: click.Context, param: click.Parameter, asked: bool) -> None:
        if asked and not context.resilient_parsing:
            click.echo(f"harness {__version__}")
            context.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version and exit."
    )


def option(group: str, *names: str, **settings: Any) -> Callable[..., Any]:
    """A click option in a section of the help."""
    return click.option(*names, cls=Option, group=group, **settings)


def command(**settings: Any) -> Callable[..., Any]:
    """A click command with help in sections."""
    return click.command(cls=Command, **settings)
