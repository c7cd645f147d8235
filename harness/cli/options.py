"""Options that several commands share, and how what the user gave becomes settings of the Python API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness.cli import completion
from harness.cli.groups import DATA, HARDWARE, MAIN, OUTPUT, RECIPE, SEARCH, TRACKING, option
from harness.errors import UsageError
from harness.planning.budget import STOPPING
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

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Lets the shell complete the path."""
        return [CompletionItem(incomplete, type="dir" if param.metavar == "DIR" else "file")]


class TrackingUri(click.ParamType):
    """The type of options that take the address of a tracking server; `~` is expanded in those of local files."""

    name = "uri"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address with its home folder."""
        return paths.expand_uri(str(value))


results_option = option(
    OUTPUT,
    "--results",
    default="results",
    show_default=True,
    metavar="DIR",
    type=UserPath(Path),
    help="Folder of the records.",
)
all_results_option = option(
    OUTPUT,
    "--results",
    multiple=True,
    default=["results"],
    show_default=True,
    metavar="DIR",
    type=UserPath(Path),
    help="Folder of the records; repeatable, to merge several.",
)
format_option = option(
    OUTPUT,
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)


def folder_option(flag: str, variable: str, text: str) -> Callable[..., Any]:
    """An option that takes a folder, else the one in an environment variable."""
    return option(DATA, flag, default="", metavar="DIR", envvar=variable, show_envvar=True, type=UserPath(), help=text)


def backbones_option(
    text: str = "Comma-separated names, patterns ('osnet:*'), groups ('all-vit'), or 'all'.",
) -> Callable[..., Any]:
    """The option for several backbones; all by default."""
    complete = completion.many(completion.backbones)
    return option(
        MAIN, "--backbones", metavar="NAMES", default="all", show_default=True, shell_complete=complete, help=text
    )


def backbone_option(text: str) -> Callable[..., Any]:
    """The option for one backbone."""
    complete = completion.one(completion.backbones)
    return option(MAIN, "--backbone", metavar="NAME", required=True, shell_complete=complete, help=text)


def dataset_option(text: str) -> Callable[..., Any]:
    """The option for one dataset."""
    complete = completion.one(completion.datasets)
    return option(MAIN, "--dataset", metavar="NAME", required=True, shell_complete=complete, help=text)


plugins_option = folder_option("--plugins", paths.PLUGINS, "Folder of your own plug-ins.")
data_root_option = folder_option("--data-root", paths.DATASETS, "Folder that holds the datasets.")
weights_root_option = folder_option("--weights-root", paths.WEIGHTS, "Folder of pretrained files.")
cache_option = folder_option("--cache", paths.CACHE, "Folder for decoded images.")
report_option = option(
    OUTPUT,
    "--report",
    "report_path",
    default="",
    metavar="FILE",
    type=UserPath(),
    show_default="BENCHMARKS.md of the checkout for its own results, else in the results folder",
    help="Report to write.",
)
mlflow_option = option(
    TRACKING,
    "--mlflow-uri",
    default="",
    type=TrackingUri(),
    show_default="$MLFLOW_TRACKING_URI, or a local file",
    help="MLflow tracking server.",
)
no_mlflow_option = option(TRACKING, "--no-mlflow", is_flag=True, help="Do not log to MLflow.")
device_option = option(
    HARDWARE,
    "--device",
    metavar="auto|cpu|cuda|mps|xpu",
    default="auto",
    show_default=True,
    help="Device to run on; mps and xpu are untested.",
)
build_option = option(
    RECIPE,
    "--option",
    "options",
    multiple=True,
    metavar="[BACKBONE.]KEY=VALUE",
    help="Build option, for example reidmamba.stride=12; repeatable.",
)
camera_option = option(
    RECIPE,
    "--camera-embedding",
    type=click.Choice(["on", "off"]),
    default=None,
    metavar="on|off",
    help="Turn the camera embedding on or off.",
)
timeout_option = option(
    HARDWARE,
    "--timeout",
    default="",
    metavar="DURATION",
    show_default="none",
    help="Time limit per run, for example 90s, 30m or 10h.",
)
count_option = option(
    DATA, "--allow-count-mismatch", is_flag=True, help="Continue if image counts differ from the card; recorded."
)
workers_option = option(
    HARDWARE,
    "--workers",
    type=click.IntRange(0),
    metavar="N",
    default=1,
    show_default=True,
    help="Loader threads per run; batches do not depend on it.",
)


reader_option = option(
    DATA,
    "--data-option",
    multiple=True,
    metavar="DATASET.KEY=VALUE",
    help="Reader option, for example msmt17.version=v2; repeatable.",
)
gpus_per_run_option = option(
    HARDWARE,
    "--gpus-per-run",
    metavar="N",
    type=float,
    show_default="1, or 0 on a CPU",
    help="GPUs per run: a fraction shares a GPU, two and more train one run together.",
)


def threads_option(usual: str, text: str = "Number of CPU threads.") -> Callable[..., Any]:
    """`--threads`, with the words for its default."""
    count = click.IntRange(0)
    return option(HARDWARE, "--threads", metavar="N", type=count, default=0, show_default=usual, help=text)


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Adds several options to a command, in their order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(options):
            command = one(command)
        return command

    return add


setting_options = together(
    option(
        RECIPE,
        "--recipe",
        default="unified",
        show_default=True,
        type=UserPath(),
        metavar="NAME|FILE",
        shell_complete=completion.one(completion.recipes, files=True),
        help="Recipe; 'native' uses each backbone's published recipe, 'tuned' (run, plan) a search.",
    ),
    option(
        RECIPE,
        "--preset",
        default="",
        metavar="NAME",
        shell_complete=completion.one(completion.presets),
        help="Small networks: demo, smoke (generated people), small (your data).",
    ),
    data_root_option,
    weights_root_option,
    option(DATA, "--from-scratch", is_flag=True, help="Start from random weights instead of pretrained ones."),
    device_option,
    build_option,
    reader_option,
    option(
        RECIPE,
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Recipe value, for example optimizer.lr=0.01; repeatable.",
    ),
    cache_option,
    plugins_option,
    results_option,
)
"""How any run is set up."""

grid_options = together(
    backbones_option(),
    option(
        MAIN,
        "--datasets",
        metavar="NAMES",
        default="all",
        show_default=True,
        shell_complete=completion.many(completion.datasets),
        help="Comma-separated datasets, or 'all'.",
    ),
    option(
        MAIN,
        "--seeds",
        metavar="SEEDS",
        default="0",
        show_default=True,
        help="Comma-separated seeds; one run per seed.",
    ),
    option(
        MAIN,
        "--eval-datasets",
        metavar="NAMES",
        default="",
        shell_complete=completion.many(completion.datasets),
        help="Further datasets to score every model on.",
    ),
    option(
        MAIN,
        "--protocol",
        type=click.Choice(["each", "leave-one-out"]),
        default="each",
        show_default=True,
        metavar="each|leave-one-out",
        help="Train on each dataset; or on all but one together, and score that one.",
    ),
    option(MAIN, "--force", is_flag=True, help="Repeat finished runs."),
    option(
        MAIN,
        "--train-time",
        default="",
        metavar="DURATION",
        show_default="epochs of the recipe",
        help="Train each run for as many epochs as fit into this time, such as 30m.",
    ),
    option(
        SEARCH,
        "--budget",
        type=click.IntRange(1),
        metavar="N",
        show_default="20",
        help="Trials of each study, for --recipe tuned.",
    ),
    option(
        SEARCH,
        "--studies",
        type=click.IntRange(1),
        metavar="S",
        show_default="3",
        help="Independent studies per backbone and dataset, for --recipe tuned.",
    ),
    option(
        SEARCH,
        "--space",
        type=UserPath(),
        metavar="NAME|FILE",
        show_default="training",
        shell_complete=completion.one(completion.spaces, files=True),
        help="Search space of --recipe tuned; see 'list spaces'.",
    ),
    option(
        SEARCH,
        "--stopping",
        type=click.Choice(STOPPING),
        metavar="late|off",
        show_default="late",
        help="Stop the worse half of the trials after 3/4 of their epochs, or none.",
    ),
    setting_options,
    camera_option,
)
"""A grid of runs."""

debug_option = option(HARDWARE, "--debug", is_flag=True, help="Run in this process, so that a debugger can stop in it.")

execution_options = together(
    debug_option,
    option(
        HARDWARE,
        "--scheduler",
        type=click.Choice(["ray", "local", "inline"]),
        default="ray",
        show_default=True,
        metavar="ray|local",
        help="Scheduler; 'local' runs the same jobs without Ray.",
    ),
    gpus_per_run_option,
    option(
        HARDWARE,
        "--cpus-per-run",
        metavar="N",
        type=int,
        default=0,
        show_default="a fair share",
        help="CPU cores and threads per run.",
    ),
    option(
        HARDWARE,
        "--max-concurrent",
        metavar="N",
        type=int,
        default=0,
        show_default="as many as fit",
        help="Maximum number of runs at the same time.",
    ),
    timeout_option,
    option(HARDWARE, "--address", default="", metavar="ADDRESS", help="Ray cluster to join, for example 'auto'."),
    workers_option,
    count_option,
    mlflow_option,
    no_mlflow_option,
    report_option,
)
"""How runs are carried out; none of it changes a number."""

audit_option = option(
    MAIN,
    "--audit",
    is_flag=False,
    flag_value="default",
    default="",
    metavar="[CHECKS]",
    help="Audit the network after the evaluation; a comma list of audits, or 'all'.",
)

GIVEN = click.core.ParameterSource.COMMANDLINE


def given(values: dict[str, Any], *without: str) -> dict[str, Any]:
    """Returns the values of options that the user typed, with texts of the form KEY=VALUE parsed.

    Defaults and values of environment variables are left out: the Python API reads them itself, below a preset.

    Args:
        values: values of all options.
        *without: names of options to leave out.
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
    """Values by name and key; a key without a name is an entry of its own."""
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
        raise UsageError(f"{flag} must be of the form KEY=VALUE, found '{text}'.")
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
