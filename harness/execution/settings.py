"""Turns the settings of a user, from Python or the command line, into a request and its execution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError, unknown
from harness.execution.options import Execution
from harness.planning import request as requests
from harness.planning.budget import TUNED
from harness.planning.request import Names, Request, Settings
from harness.spec import preset as presets


@dataclass(frozen=True)
class Asked:
    """Resolved settings.

    Attributes:
        request: the runs.
        execution: how they are executed.
        generate: settings of the preset for generated people; empty for none.
        others: further settings, such as those of a search or a measurement.
    """

    request: Request
    execution: Execution
    generate: Mapping[str, Any]
    others: dict[str, Any]


def resolve(
    backbones: Names,
    datasets: Names,
    given: Mapping[str, Any],
    *,
    grid: bool = True,
    others: Iterable[str] = (),
    table: str = "",
) -> Asked:
    """Checks settings and fills in those of a preset, which never replace given ones.

    Args:
        backbones: names of backbones.
        datasets: names of datasets.
        given: settings, see `Settings` and `Execution`.
        grid: whether the command trains a grid of runs, as `run` and `plan` do.
        others: names of further allowed settings.
        table: table of the preset that contains further settings.

    Raises:
        UsageError: an unknown setting, name or preset, or a value that does not fit.
    """
    ours, theirs, further = Settings.__annotations__, Execution.__dataclass_fields__.keys(), set(others)
    for name in given:
        if name not in ours and name not in theirs and name not in further:
            raise unknown("setting", name, {*ours, *theirs, *further})
    preset = presets.load(given["preset"]) if given.get("preset") else {}
    settings = presets.lay_under(given, {**preset, **preset.get(table, {})})
    execution = Execution.of({name: value for name, value in settings.items() if name in theirs})
    rest = {name: value for name, value in settings.items() if name in further}
    own = {name: value for name, value in settings.items() if name not in further}
    request = requests.make(backbones, datasets, own, preset, address=execution.address, processes=execution.processes)
    if not grid and request.budget:
        raise UsageError(f"--recipe {TUNED} is a search, which only `run` and `plan` can do. Pass another recipe.")
    if not grid and request.train_time:
        raise UsageError("Only `run` and `plan` can train for a given time. Leave out the train time.")
    execution.check_gpus(requests.resolve_device(request.device))
    return Asked(request, execution, preset.get("generate", {}), rest)
