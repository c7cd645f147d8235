"""Options that several commands share, and how they become a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cards import read_toml
from harness.errors import UsageError, unknown
from harness.planning.plan import Request, parse_seeds, resolve_device
from harness.spec import recipe
from harness.spec.job import LocalPaths
from harness.system import gpu, paths

PRESETS = recipe.FOLDER.parent / "presets"


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


results_option = click.option(
    "--results", default="results", show_default=True, help="Folder of the records.", type=UserPath(Path)
)
format_option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)


def folder_option(flag: str, variable: str, text: str) -> Callable[..., Any]:
    """An option that takes a folder, else the one in an environment variable."""
    return click.option(flag, default="", metavar="DIR", envvar=variable, show_envvar=True, type=UserPath(), help=text)


plugins_option = folder_option("--plugins", paths.PLUGINS, "Folder of further plug-ins.")
data_root_option = folder_option("--data-root", paths.DATASETS, "Folder that holds the datasets.")
weights_root_option = folder_option("--weights-root", paths.WEIGHTS, "Folder of pretrained files.")
report_option = click.option(
    "--report",
    "report_path",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="Page to write. [default: BENCHMARKS.md of the checkout for its own results, else in the results folder]",
)
mlflow_option = click.option(
    "--mlflow-uri",
    default="",
    type=TrackingUri(),
    help="Tracking server; $MLFLOW_TRACKING_URI, or sqlite in the results.",
)


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that describe a grid of runs."""
    for option in reversed(
        (
            click.option("--backbones", help="Comma list of names, or 'all'.", default="all", show_default=True),
            click.option("--datasets", help="Comma list of names, or 'all'.", default="all", show_default=True),
            click.option("--camera-embedding", default="", metavar="on|off", help="Camera embedding of backbones."),
            click.option("--seeds", default="0", show_default=True, help="Comma list of seeds."),
            click.option("--eval-datasets", default="", help="Datasets every model is also scored on."),
            click.option("--force", is_flag=True, help="Run again what is finished."),
            setting_options,
        )
    ):
        command = option(command)
    return command


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that describe how any run is set up."""
    for option in reversed(
        (
            click.option(
                "--recipe",
                default="unified",
                show_default=True,
                type=UserPath(),
                metavar="NAME|FILE",
                help="Recipe name or path; 'native' uses each backbone's published recipe.",
            ),
            click.option("--preset", default="", help="Settings for small machines: demo or smoke."),
            data_root_option,
            weights_root_option,
            click.option("--from-scratch", is_flag=True, help="Start from random weights, not from ImageNet."),
            click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
            click.option("--option", "options", multiple=True, metavar="[BACKBONE.]KEY=VALUE", help="Build option."),
            click.option("--data-option", multiple=True, metavar="DATASET.KEY=VALUE", help="Reader option."),
            click.option(
                "--set",
                "overrides",
                multiple=True,
                metavar="KEY=VALUE",
                help="Recipe key: optimizer.lr=0.01, augmentation.image_size=384x128",
            ),
            folder_option("--cache", paths.CACHE, "Folder of decoded images."),
            plugins_option,
            results_option,
        )
    ):
        command = option(command)
    return command


def load_preset(name: str) -> dict[str, Any]:
    """Reads a preset; its keys are its name and those of the command line, its tables `options` and `generate`."""
    if not name:
        return {}
    if not (path := PRESETS / f"{name}.toml").is_file():
        raise unknown("preset", name, [p.stem for p in PRESETS.glob("*.toml")])
    return {**read_toml(path), "name": name}


def apply_preset(values: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """Lays a preset's values under those the user gave."""
    context = click.get_current_context()
    given = click.core.ParameterSource.COMMANDLINE
    elsewhere = context.get_parameter_source("results") == given
    for key, value in preset.items():
        if isinstance(value, dict) or (key == "report_path" and elsewhere):
            continue  # tables are read elsewhere; the page is that of the preset's own results
        if key in values and context.get_parameter_source(key) != given:
            values[key] = Path(value) if isinstance(values[key], Path) else value
    return values


def make_request(values: dict[str, Any], preset: dict[str, Any]) -> Request:
    """Builds the request from command-line values, with a preset already applied."""
    options: dict[str, dict[str, Any]] = {name: dict(table) for name, table in preset.get("options", {}).items()}
    for text in values["options"]:
        key, value = _pair("--option", text)
        backbone, _, name = key.rpartition(".")
        options.setdefault(backbone, {})[name] = value
    if values.get("camera_embedding"):
        options.setdefault("", {})["camera_embedding"] = values["camera_embedding"]
    readers: dict[str, dict[str, Any]] = {}
    for text in values["data_option"]:
        key, value = _pair("--data-option", text)
        dataset, _, name = key.rpartition(".")
        readers.setdefault(registry.dataset(dataset, plugins_path(values["plugins"])).name, {})[name] = _literal(value)
    return Request(
        dataset_options=readers,
        backbones=values["backbones"],
        datasets=values["datasets"],
        recipe=values["recipe"],
        seeds=parse_seeds(values["seeds"]),
        results=values["results"].absolute(),
        paths=LocalPaths(
            data_root=absolute(values["data_root"]),
            weights_root=absolute(values["weights_root"]),
            cache=absolute(values["cache"] or str(paths.cache_folder())),
            plugins=absolute(values["plugins"]),
        ),
        device=_device(values["device"], values.get("address", "")),
        options=options,
        overrides={key: _literal(value) for key, value in (_pair("--set", text) for text in values["overrides"])},
        eval_datasets=values["eval_datasets"],
        from_scratch=values["from_scratch"],
        force=values["force"],
        preset=preset.get("name", ""),
    )


def _device(device: str, address: str) -> str:
    """The device asked for; a driver without a GPU cannot tell whether the nodes of its cluster have some."""
    if not address and device == "cuda" and not gpu.usable():
        raise UsageError(
            "--device cuda, but this machine shows no GPU. Use --device cpu, or name the cluster that has some with "
            "--address."
        )
    if address and device == "auto" and resolve_device(device) == "cpu":
        raise UsageError(
            f"This machine shows no GPU, which says nothing about the cluster at {address}: "
            "choose --device cuda or --device cpu."
        )
    return device


def absolute(path: str) -> str:
    """Absolute form of a path; empty stays empty."""
    return str(Path(path).absolute()) if path else ""


def plugins_path(plugins: str) -> Path | None:
    """The `--plugins` folder, or None."""
    return Path(plugins) if plugins else None


def _pair(flag: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{flag} wants KEY=VALUE, found '{text}'.")
    return key.strip(), value.strip()


def _literal(text: str) -> Any:
    """Reads a value as TOML does; a bare word is text, and 256x128 a size."""
    import tomllib

    if re.fullmatch(r"\d+x\d+", text):
        return [int(side) for side in text.split("x")]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
