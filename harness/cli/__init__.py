"""The command line: one file per command; it parses options, calls the program and prints."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from harness.cli.groups import WIDEST_HELP, write_epilog
from harness.errors import HarnessError, out_of_memory, suggestion
from harness.system import paths
from harness.system.redact import mask, readable
from harness.system.version import __version__

COMMANDS = {
    "run": "Train and score backbones on datasets, then write the report.",
    "plan": "Show what 'run' would do: which runs are finished, to do or blocked.",
    "list": "List backbones, datasets, recipes, presets or search spaces.",
    "prepare": "Unpack and check datasets, and download pretrained weights.",
    "validate": "Check datasets against their cards, and backbones against the contract.",
    "status": "Show the records of a results folder; send missing ones to MLflow.",
    "report": "Write BENCHMARKS.md, CSV files or a website from the records.",
    "results": "Check the results of others before they are merged with yours.",
    "evaluate": "Score a checkpoint or stored features without training.",
    "audit": "Audit a trained network: cameras, open set and other things that a score hides.",
    "embed": "Write the features of images, from a trained network to a file.",
    "export": "Write a trained network as an ONNX or torch.export file.",
    "publish": "Write weights, model card and record of a run, or upload them.",
    "compare": "Compare two backbones on a dataset, with an interval and a p-value.",
    "claims": "Judge the published numbers and claims of the cards from your runs.",
    "tune": "Search hyperparameters on held-out training identities.",
    "profile": "Measure parameters, FLOPs, throughput, latency and memory.",
    "run-one": "",
}
"""A line about each command; a hidden one has none."""


class Commands(click.Group):
    """Looks up commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, about in COMMANDS.items() if about]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "ls":
            name = "list"
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"harness.cli.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in {*COMMANDS, "ls"}:
            known = ", ".join(self.list_commands(ctx))
            raise HarnessError(f"Unknown command '{args[0]}'.{suggestion(args[0], COMMANDS)} Commands: {known}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, about in COMMANDS.items() if about])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes an example, and where to read on."""
        formatter.write_paragraph()
        formatter.write_text("Run `python -m harness COMMAND --help` for the options of a command.")
        write_epilog(formatter, {}, "python -m harness run --backbones bot --datasets market1501 --preset demo")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST_HELP},
)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Benchmark person re-identification backbones with the same data, evaluation and timing for all."""


def main() -> int:
    """Runs the command line and returns its exit code.

    The codes are 0: all runs are finished, 1: some run failed, 2: wrong usage, 130: interrupted.
    """
    try:
        _right_packages()
        paths.settle()
        result = cli.main(standalone_mode=False, prog_name=_program(), complete_var="_REID_HARNESS_COMPLETE")
        return int(result or 0)
    except HarnessError as error:
        click.echo(f"Error: {readable(mask(str(error)))}", err=True)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        reason = readable(str(error).partition("\n")[0])
        click.echo(f"Error: Memory ran out ({reason}). Use smaller images, or a device with more memory.", err=True)
        return 1
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            name = readable(str(error.filename).rpartition("/")[2])
            click.echo(f"Error: '{name[:40]}...' has {len(name)} characters, too many for a file name.", err=True)
            return 2
        if not _is_of_the_output(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail at the exit
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe chose to leave
            click.echo(f"Error: The output could not be written ({error.strerror}).", err=True)
        return 1


def _program() -> str:
    """How the user called the program; shell completion needs the name of the installed command."""
    name = Path(sys.argv[0]).name
    return name if name == "reid-harness" else "python -m harness"


def _is_of_the_output(error: OSError) -> bool:
    """Whether it was raised where text is printed."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == "click.utils"


def _right_packages() -> None:
    """`datasets` and `backbones` must be this repository's; the Hugging Face library has the same name."""
    from importlib.util import find_spec

    from harness.system.paths import REPOSITORY

    for name in ("backbones", "datasets"):
        spec = find_spec(name)
        origin = str(spec.origin) if spec else "nowhere"
        if not origin.startswith(str(REPOSITORY)):
            raise HarnessError(
                f"The package '{name}' comes from {origin}, expected from {REPOSITORY}. Run `cd {REPOSITORY}`, or "
                "uninstall the other package."
            )
