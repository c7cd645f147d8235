"""Options that name a trained network, for the commands that use one."""

from __future__ import annotations

from collections import ChainMap
from typing import Any

from harness.cli import completion
from harness.cli.groups import MAIN, RECIPE, option
from harness.cli.options import (
    UserPath,
    build_option,
    given,
    literal,
    plugins_option,
    results_option,
    together,
)
from harness.errors import UsageError

network_options = together(
    option(
        MAIN,
        "--backbone",
        metavar="NAME",
        default="",
        shell_complete=completion.one(completion.backbones),
        help="Backbone; may be left out with --run.",
    ),
    option(MAIN, "--run", default="", metavar="ID", help="Run that trained it, by the first characters of its id."),
    option(
        MAIN,
        "--checkpoint",
        default="",
        metavar="FILE",
        type=UserPath(),
        help="Checkpoint of the original code, published weights, or checkpoint.pt.",
    ),
    option(MAIN, "--trust-pickle", is_flag=True, help="Allow a file that runs code when it is loaded."),
    option(
        RECIPE,
        "--image-size",
        default="",
        metavar="HEIGHTxWIDTH",
        show_default="that of the run, or of the card",
        help="Image size of the network, in pixels.",
    ),
    build_option,
    results_option,
    plugins_option,
)
"""A run or a checkpoint, and how to build it."""


def network_settings(values: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the settings that the user typed, with sizes and tables parsed, and the folders of the environment."""
    found = given(values, *without)
    found |= {name: values[name] for name in ("results", "plugins", "data_root") if values.get(name)}
    if "options" in found:
        named = [table for table in found["options"].values() if isinstance(table, dict)]
        plain = {key: value for key, value in found["options"].items() if not isinstance(value, dict)}
        found["options"] = ChainMap(*named, plain)
    if "image_size" in found:
        size = literal(found["image_size"])
        if not isinstance(size, list):
            raise UsageError(f"--image-size must be of the form HEIGHTxWIDTH, found '{found['image_size']}'.")
        found["image_size"] = size
    if not (values.get("run") or values.get("checkpoint")):
        raise UsageError("Name a trained network: pass --run ID, or --backbone NAME with --checkpoint FILE.")
    return found
