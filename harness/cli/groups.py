"""Help in sections: options are grouped by what they are about; exit codes and an example come last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from harness.system.version import __version__

WIDEST_HELP = 100
"""Columns of help on a wide terminal."""

WIDEST_NAMES = 34
"""Columns for the names of options; the text beside longer names begins on the next line."""

MAIN, DATA, RECIPE, HARDWARE = "Main options", "Data and weights", "Recipe and model", "Hardware and scheduling"
SEARCH, MEASUREMENT, TRACKING, OUTPUT = "Search", "Measurement", "Tracking", "Output"
OWN = "Your own dataset"

GROUPS = (MAIN, OWN, SEARCH, MEASUREMENT, DATA, RECIPE, HARDWARE, TRACKING, OUTPUT)
"""Sections of a command's help, in their order; options without one come last."""


class Option(click.Option):
    """An option that belongs to a section of the help.

    Args:
        *args: see `click.Option`.
        group: its section.
        former: old names, which are accepted but not shown.
        **kwargs: see `click.Option`.
    """

    def __init__(self, *args: Any, group: str = "", former: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert group in ("", *GROUPS), group
        self.group = group
        self.current = list(self.opts)
        self.opts = [*self.opts, *former]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names and text of the option, without its old names."""
        accepted, self.opts = self.opts, self.current
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = accepted

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What click adds to the text, without the range of numbers: the text names it where it matters."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default  # click puts it in brackets
        return extra


class Command(click.Command):
    """A command whose help shows options by section, then exit codes and an example.

    Args:
        *args: see `click.Command`.
        exit_codes: the meaning of each.
        example: a whole command line; it is printed on one line, so that it can be copied.
        **kwargs: see `click.Command`.
    """

    def __init__(
        self, *args: Any, exit_codes: Mapping[int, str] | None = None, example: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.exit_codes, self.example = exit_codes or {}, example
        self.params.append(version_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section per group, and the rest under `Other`."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
        rest: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):
                continue  # the usage line and the text name them
            if (row := param.get_help_record(ctx)) is not None:
                sections.get(getattr(param, "group", ""), rest).append(row)
        for name, rows in [*sections.items(), ("Other", rest)]:
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows, col_max=WIDEST_NAMES)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes exit codes and the example, each as a paragraph of its own."""
        write_epilog(formatter, self.exit_codes, self.example)


def write_epilog(formatter: click.HelpFormatter, exit_codes: Mapping[int, str], example: str) -> None:
    """Writes exit codes as a list and the example as it is."""
    if exit_codes:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in exit_codes.items()])
    if example:
        with formatter.section("Example"):
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


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
