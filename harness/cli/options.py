"""Options that several commands share, and how what the user gave becomes settings of the Python API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from harness.cli.groups import option
from harness.errors import UsageError
from harness.system import paths


class UserPath(click.ParamType):
    """The type of every option that takes a path, or a path instead of a name: `~` and `~user` are expanded.

    Args:
        kind: `Path`, or `str` for options that may be empty or hold a name.
    """

    name = "path"

    def __init__(self, kind: type[str] | type[Path] = str) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:
        """The path with its home folder."""
        return self.kind(paths.expand(value, param.opts[0] if param is not None and param.opts else "The path"))


class TrackingUri(click.ParamType):
    """The type of options that take the address of a tracking server; `~` is expanded in those of local files."""

    name = "uri"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address with its home folder."""
        return paths.expand_uri(str(value))


results_option = option(
    "Output", "--results", default="results", show_default=True, help="Folder of the records.", type=UserPath(Path)
)
format_option = option(
    "Output",
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)


def folder_option(flag: str, variable: str, text: str) -> Callable[..., Any]:
    """An option that takes a folder, else the one in an environment variable."""
    kind = UserPath()
    return option(
        "Data and weights", flag, default="", metavar="DIR", envvar=variable, show_envvar=True, type=kind, help=text
    )


plugins_option = folder_option("--plugins", paths.PLUGINS, "Folder of further plug-ins.")
data_root_option = folder_option("--data-root", paths.DATASETS, "Folder that holds the datasets.")
weights_root_option = folder_option("--weights-root", paths.WEIGHTS, "Folder of pretrained files.")
cache_option = folder_option("--cache", paths.CACHE, "Folder of decoded images.")
report_option = option(
    "Output",
    "--report",
    "report_path",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="Page to write. [default: BENCHMARKS.md of the checkout for its own results, else in the results folder]",
)
mlflow_option = option(
    "Tracking",
    "--mlflow-uri",
    default="",
    type=TrackingUri(),
    help="Tracking server; $MLFLOW_TRACKING_URI, or sqlite in the results.",
)
no_mlflow_option = option("Tracking", "--no-mlflow", is_flag=True, help="Do not track.")
device_option = option("Machine", "--device", default="auto", show_default=True, help="auto, cpu or cuda.")
build_option = option(
    "Recipe", "--option", "options", multiple=True, metavar="[BACKBONE.]KEY=VALUE", help="Build option of a backbone."
)
camera_option = option(
    "Recipe", "--camera-embedding", default="", metavar="on|off", help="Camera embedding of backbones."
)
timeout_option = option("Machine", "--timeout", default="", metavar="10h", help="Hard limit of one run: 90s, 30m, 10h.")
count_option = option(
    "Data and weights", "--allow-count-mismatch", is_flag=True, help="Go on when counts differ from the card; recorded."
)
workers_option = option(
    "Machine",
    "--workers",
    type=click.IntRange(0),
    default=0,
    help="Loader threads per run; batches do not depend on it.",
)


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Adds several options to a command, in their order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(options):
            command = one(command)
        return command

    return add


setting_options = together(
    option(
        "Recipe",
        "--recipe",
        default="unified",
        show_default=True,
        type=UserPath(),
        metavar="NAME|FILE",
        help="Recipe name or path; 'native' uses each backbone's published recipe.",
    ),
    option("Recipe", "--preset", default="", metavar="NAME", help="Settings for small machines, see 'list presets'."),
    data_root_option,
    weights_root_option,
    option("Data and weights", "--from-scratch", is_flag=True, help="Start from random weights, not from ImageNet."),
    device_option,
    build_option,
    option("Data and weights", "--data-option", multiple=True, metavar="DATASET.KEY=VALUE", help="Reader option."),
    option(
        "Recipe",
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Recipe key: optimizer.lr=0.01, loss.margin=soft, augmentation.image_size=384x128",
    ),
    cache_option,
    plugins_option,
    results_option,
)
"""How any run is set up."""

grid_options = together(
    option("What", "--backbones", help="Comma list of names, or 'all'.", default="all", show_default=True),
    option("What", "--datasets", help="Comma list of names, or 'all'.", default="all", show_default=True),
    option("What", "--seeds", default="0", show_default=True, help="Comma list of seeds."),
    option("What", "--eval-datasets", default="", help="Datasets that every model is also scored on."),
    option("What", "--force", is_flag=True, help="Run again what is finished."),
    camera_option,
    setting_options,
)
"""A grid of runs."""

execution_options = together(
    option(
        "Machine",
        "--scheduler",
        type=click.Choice(["ray", "local", "inline"]),
        default="ray",
        show_default=True,
        metavar="ray|local",
        help="'local' runs the same jobs on this machine, without Ray.",
    ),
    option("Machine", "--gpus-per-run", type=float, help="GPUs per run, fractions allowed. [default: 1, CPU: 0]"),
    option(
        "Machine", "--cpus-per-run", type=int, default=0, help="CPU cores and threads per run. [default: fair share]"
    ),
    option("Machine", "--max-concurrent", type=int, default=0, help="Runs at the same time. [default: as many as fit]"),
    timeout_option,
    option("Machine", "--address", default="", help="Existing Ray cluster to join, for example 'auto'."),
    workers_option,
    count_option,
    mlflow_option,
    no_mlflow_option,
    report_option,
)
"""How runs are carried out; none of it changes a number."""

GIVEN = click.core.ParameterSource.COMMANDLINE


def given(values: dict[str, Any], *without: str) -> dict[str, Any]:
    """The values that stand on the command line but for some, with texts of the form KEY=VALUE read.

    What comes from the environment or is a default is left out: the API looks there itself, below a preset.
    """
    context = click.get_current_context()
    typed = {name for name in values if context.get_parameter_source(name) == GIVEN}
    found = {name: values[name] for name in typed.difference(without)}
    if "options" in found:
        found["options"] = _tables("--option", found["options"], str)
    if "data_option" in found:
        found["data_options"] = _tables("--data-option", found.pop("data_option"), literal)
    if "overrides" in found:
        found["overrides"] = {
            key: literal(value) for key, value in (pair("--set", text) for text in found["overrides"])
        }
    if found.pop("no_mlflow", False):
        found["mlflow"] = False
    return found


def plugins_path(plugins: str) -> Path | None:
    """The `--plugins` folder, or None."""
    return Path(plugins) if plugins else None


def _tables(flag: str, texts: Iterable[str], read: Callable[[str], Any]) -> dict[str, Any]:
    """Values by name and key; a key without a name stands by itself."""
    tables: dict[str, Any] = {}
    for text in texts:
        key, value = pair(flag, text)
        name, _, leaf = key.rpartition(".")
        (tables.setdefault(name, {}) if name else tables)[leaf] = read(value)
    return tables


def pair(flag: str, text: str) -> tuple[str, str]:
    """Splits KEY=VALUE.

    Raises:
        UsageError: it has no key or no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{flag} wants KEY=VALUE, found '{text}'.")
    return key.strip(), value.strip()


def literal(text: str) -> Any:
    """Reads a value as TOML does; a bare word is text, and 256x128 a size."""
    import tomllib

    if re.fullmatch(r"\d+x\d+", text):
        return [int(side) for side in text.split("x")]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
