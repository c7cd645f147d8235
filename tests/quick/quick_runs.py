"""Lets the runs of tests start sooner; `sitecustomize.py` beside it, on PYTHONPATH of every test, imports it first.

Tests start hundreds of short runs, and most of such a run is imports. What is left out here changes no number: torch's
compiler, which every optimizer imports and only `profile` uses, and the pictures of a run, unless a test asks for them
by `HARNESS_TEST_PICTURES`.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any


class NoCompiler(types.ModuleType):
    """Stands for a module whose functions only mark other functions."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda function=None, *_, **__: function


def spec() -> dict[str, Any]:
    """The spec of the run in this process; empty if it is none."""
    try:
        return dict(json.loads((Path(sys.orig_argv[-1]) / "job.json").read_bytes())["spec"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


if "run-one" in sys.orig_argv and (run := spec()).get("purpose") != "profile":
    if str(run.get("backbone")).partition(":")[0] in ("pixels", "dummy"):  # real ones look into the compiler
        sys.modules["torch._dynamo"] = NoCompiler("torch._dynamo")
    if not os.environ.get("HARNESS_TEST_PICTURES"):
        sys.modules["harness.figures.run_figures"] = types.ModuleType("harness.figures.run_figures")
        sys.modules["harness.figures.run_figures"].draw = lambda *_, **__: []  # type: ignore[attr-defined]
