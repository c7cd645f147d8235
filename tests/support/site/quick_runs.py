"""Speeds up the start of runs of the stand-in backbones, for tests with the fixture `quick_runs`.

Tests of faults start hundreds of short runs. A third of such a run is the import of torch's compiler, which every
optimiser imports and only `profile` uses. Results do not change without it.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

STAND_INS = ("pixels", "dummy")
"""Backbones whose code does not use the compiler."""


class Decorator:
    """Returns the function that it is called with, and has every attribute."""

    def __call__(self, function: Any = None, *_: Any, **__: Any) -> Any:
        return function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Decorator()


class NoCompiler(types.ModuleType):
    """Replaces a module whose functions only decorate other functions."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Decorator()


def spec() -> dict[str, Any]:
    """Returns the spec of the run in this process; empty if there is none."""
    try:
        folder = Path(sys.orig_argv[sys.orig_argv.index("run-one") + 1])
        return dict(json.loads((folder / "job.json").read_bytes())["spec"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


if "run-one" in sys.orig_argv:
    run = spec()
    if run.get("purpose") != "profile" and str(run.get("backbone")).partition(":")[0] in STAND_INS:
        sys.modules["torch._dynamo"] = NoCompiler("torch._dynamo")
