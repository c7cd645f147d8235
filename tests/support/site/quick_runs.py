"""Speeds up the start of runs, for tests with the fixture `quick_runs`.

Tests start hundreds of short runs. A third of such a run is the import of torch's compiler, which every optimiser and
torchvision import and only `profile` uses. Results do not change without it.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any


class NoCompiler(types.ModuleType):
    """Replaces a module whose functions only decorate other functions."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda function=None, *_, **__: function


def purpose() -> str:
    """Returns the purpose of the run in this process; empty if it cannot be read."""
    try:
        return str(json.loads((Path(sys.orig_argv[-1]) / "job.json").read_bytes())["spec"]["purpose"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


if "run-one" in sys.orig_argv and purpose() != "profile":
    for name in ("torch._dynamo", "torch._dynamo.utils"):
        sys.modules[name] = NoCompiler(name)
