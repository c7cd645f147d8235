"""Search spaces, read from TOML: parameters with a distribution and the key they set, and named points.

Inside a search, the value of a parameter is a position in [0, 1], uniformly distributed. If a logarithmic range
includes zero, zero takes the lowest part of the axis, because for a loss weight it is the limit of small values.

A parameter may be conditional: the learning rate of Adam has an effect only if the optimiser is Adam. Without effect,
its value is its default, or None, which sets nothing. A parameter without effect makes no other one active.
"""

from __future__ import annotations

import graphlib
import itertools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, structs, to_builtins

from harness.cards import from_table, read_toml
from harness.errors import UsageError, unknown

FOLDER = Path(__file__).parent / "spaces"

FORMER_KEYS = {"zero": "zero_probability", "matters_with": "active_if"}
"""Former names of a parameter's keys. They can still be read, and ids of searches are computed from them."""

LATER_KEYS = {"unit": "", "optional": False}
"""Keys that are younger than the first search ids, with their defaults, which ids and search files leave out."""

Point = dict[str, Any]
"""A value for every parameter, by name; None for a parameter that has no effect and no default."""


class Parameter(Struct, frozen=True, forbid_unknown_fields=True):
    """One parameter of a search space.

    Attributes:
        key: what it sets: `recipe.KEY` for a recipe key, `option.NAME` for a build option of the backbone.
        distribution: `uniform`, `log-uniform`, `integer` (both ends included) or `choice`.
        low: smallest value.
        high: largest value.
        zero_probability: for `log-uniform`, the probability of exactly zero.
        values: values of a `choice`.
        grid: values for a grid search; without them, evenly spaced positions are used.
        default: value if the parameter has no effect.
        active_if: names of parameters; this one only has an effect if at least one of them is not zero. Or a table of
            values by parameter name; this one only has an effect if each of them has one of its values.
        unit: `epochs` for a value that is a fraction of the epochs of the run.
        optional: whether it is left out for a backbone without this build option.
    """

    key: str
    distribution: Literal["uniform", "log-uniform", "integer", "choice"] = "uniform"
    low: float = 0.0
    high: float = 1.0
    zero_probability: float = 0.0
    values: tuple[Any, ...] = ()
    grid: tuple[Any, ...] = ()
    default: Any = None
    active_if: tuple[str, ...] | dict[str, tuple[Any, ...]] = ()
    unit: Literal["", "epochs"] = ""
    optional: bool = False

    def is_active(self, point: Mapping[str, Any]) -> bool:
        """Whether the parameter has an effect at a point."""
        if isinstance(self.active_if, dict):
            return all(point.get(name) in values for name, values in self.active_if.items())
        return not self.active_if or any(point[name] not in (0, None) for name in self.active_if)

    def index(self, value: Any) -> int:
        """The number of a value of a `choice`; without an effect, that of the middle one."""
        return int(self.position(value) * len(self.values))

    def value(self, position: float) -> Any:
        """The value at a position in [0, 1], rounded to four significant digits."""
        if self.distribution == "choice":
            return self.values[min(int(position * len(self.values)), len(self.values) - 1)]
        if self.distribution == "integer":
            return int(min(self.low + math.floor(position * (self.high - self.low + 1)), self.high))
        if self.distribution == "uniform":
            return float(f"{self.low + position * (self.high - self.low):.4g}")
        if position < self.zero_probability:
            return 0.0
        above = (position - self.zero_probability) / (1 - self.zero_probability)
        return float(f"{self.low * (self.high / self.low) ** above:.4g}")

    def position(self, value: Any) -> float:
        """The position of a value in [0, 1]; values outside the range are clipped, and None is in the middle."""
        if value is None:
            return 0.5
        if self.distribution == "choice":
            return (self.values.index(value) + 0.5) / len(self.values) if value in self.values else 0.5
        if self.distribution == "integer":
            found = (value - self.low + 0.5) / (self.high - self.low + 1)
        elif self.distribution == "uniform":
            found = (value - self.low) / (self.high - self.low)
        elif value <= 0:
            found = self.zero_probability / 2
        else:
            above = max(0.0, math.log(value / self.low) / math.log(self.high / self.low))
            found = self.zero_probability + (1 - self.zero_probability) * above
        return min(max(found, 0.0), 1.0)

    def check(self, where: str) -> None:
        """Checks that the parameter is valid.

        Raises:
            UsageError: names the invalid key; the message starts with `where`.
        """
        kind, _, name = self.key.partition(".")
        if kind not in ("recipe", "option") or not name:
            raise UsageError(f"{where}: key must be 'recipe.KEY' or 'option.NAME', found '{self.key}'.")
        if self.distribution == "choice" and (count := len({repr(value) for value in self.values})) < 2:
            raise UsageError(f"{where}: a choice needs at least two values, found {count}.")
        if self.unit and (self.distribution == "choice" or kind != "recipe"):
            raise UsageError(f"{where}: unit needs a range of numbers and a key 'recipe.KEY'. Remove unit.")
        if self.optional and kind != "option":
            raise UsageError(f"{where}: optional needs a key 'option.NAME', found '{self.key}'. Remove optional.")
        if self.distribution != "choice" and not self.low < self.high:
            raise UsageError(f"{where}: low must be below high, found {self.low:g} and {self.high:g}.")
        if self.distribution == "log-uniform" and self.low <= 0:
            raise UsageError(
                f"{where}: low must be above zero for log-uniform, found {self.low:g}. "
                "To include zero, set zero_probability."
            )
        if not 0 <= self.zero_probability < 1 or (self.zero_probability and self.distribution != "log-uniform"):
            raise UsageError(
                f"{where}: zero_probability must be at least 0 and below 1, and needs log-uniform; found "
                f"{self.zero_probability:g} with {self.distribution}."
            )


class NamedPoint(Struct, frozen=True, forbid_unknown_fields=True):
    """A point that is tried first; a `final` point also gets final runs on the whole training set."""

    name: str
    values: Point
    final: bool = False


class Space(Struct, frozen=True, forbid_unknown_fields=True):
    """A search space.

    Attributes:
        name: name of the space.
        parameters: parameters by name.
        points: named points.
        about: description for the report.
    """

    name: str
    parameters: dict[str, Parameter]
    points: tuple[NamedPoint, ...] = ()
    about: str = ""

    def canonical(self, point: Mapping[str, Any]) -> Point:
        """Sets parameters that have no effect to their defaults, so that equivalent points are equal."""
        found: Point = {}
        for name in _by_condition(self.parameters):
            parameter = self.parameters[name]
            found[name] = point[name] if parameter.is_active(found) else parameter.default
        return {name: found[name] for name in self.parameters}

    def fitting(self, options: Collection[str]) -> Space:
        """Leaves out optional parameters of build options that a backbone does not declare.

        The others come in another order: build options last. So they are drawn alike for every backbone.
        """
        kept = {n: p for n, p in self.parameters.items() if not p.optional or p.key.removeprefix("option.") in options}
        if not any(p.optional for p in self.parameters.values()):
            return self
        points = [structs.replace(n, values={k: v for k, v in n.values.items() if k in kept}) for n in self.points]
        ordered = sorted(kept.items(), key=lambda pair: pair[1].key.startswith("option."))
        return structs.replace(self, parameters=dict(ordered), points=tuple(points))

    def at(self, positions: Mapping[str, float]) -> Point:
        """Returns the point at given positions."""
        return self.canonical({name: p.value(positions[name]) for name, p in self.parameters.items()})

    def positions(self, point: Mapping[str, Any]) -> dict[str, float]:
        """Returns the positions of a point."""
        return {name: p.position(point[name]) for name, p in self.parameters.items()}

    def recipe(self, point: Mapping[str, Any], epochs: int = 0) -> dict[str, Any]:
        """Recipe keys (dotted) and values that a point sets in a run of so many epochs."""
        return self._keys(point, "recipe.", epochs)

    def options(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Build options and values that a point sets."""
        return self._keys(point, "option.")

    def _keys(self, point: Mapping[str, Any], prefix: str, epochs: int = 0) -> dict[str, Any]:
        return {
            p.key.removeprefix(prefix): float(f"{point[name] * epochs:.4g}") if p.unit else point[name]
            for name, p in self.parameters.items()
            if p.key.startswith(prefix) and point[name] is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data for JSON; parameters are a list, because JSON keys are sorted."""
        return to_builtins(self) | {"parameters": [[name, _plain(p)] for name, p in self.parameters.items()]}

    def identity(self) -> dict[str, Any]:
        """Input of the search id: the space with former keys, so that renaming keys does not change ids."""
        former = {new: old for old, new in FORMER_KEYS.items()}
        parameters = [[name, rename(_plain(p), former)] for name, p in self.parameters.items()]
        return to_builtins(self) | {"parameters": parameters}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "space") -> Space:
        """Inverse of `to_dict`; also reads the contents of a TOML file.

        Raises:
            UsageError: an unknown key, or an invalid parameter or point.
        """
        table = dict(data)
        if isinstance(table.get("parameters"), list):
            table["parameters"] = dict(table["parameters"])
        if isinstance(parameters := table.get("parameters"), dict):
            table["parameters"] = {name: rename(keys, FORMER_KEYS) for name, keys in parameters.items()}
        space = from_table(cls, table, where)
        if not space.parameters:
            raise UsageError(f"{where} has no parameters. Add at least one table [parameters.NAME].")
        for name, parameter in space.parameters.items():
            parameter.check(f"{where}: parameter {name}")
            for other in parameter.active_if:
                space._check_condition(parameter, other, name, where)
            if isinstance(parameter.active_if, tuple) and parameter.active_if and parameter.default is None:
                raise UsageError(f"{where}: parameter {name} has active_if, so it also needs a default.")
        try:
            _by_condition(space.parameters)
        except graphlib.CycleError as error:
            names = " and ".join(dict.fromkeys(error.args[1]))
            raise UsageError(f"{where}: {names} cannot be its own condition in active_if. Remove it there.") from error
        space._check_keys(where)
        for point in space.points:
            if point.values.keys() != space.parameters.keys():
                raise UsageError(
                    f"{where}: point '{point.name}' must set exactly {', '.join(space.parameters)}; "
                    f"found {', '.join(point.values) or 'nothing'}."
                )
        if len({point.name for point in space.points}) < len(space.points) or "best" in {p.name for p in space.points}:
            raise UsageError(f"{where}: names of points must be unique, and 'best' is reserved.")
        return space

    def _check_condition(self, parameter: Parameter, other: str, name: str, where: str) -> None:
        """Checks that a parameter in active_if can make this one active.

        Raises:
            UsageError: it cannot, or not for every backbone.
        """
        if other not in self.parameters:
            raise unknown(f"parameter in active_if of {name} in {where}", other, self.parameters)
        condition = self.parameters[other]
        if condition.optional:
            raise UsageError(
                f"{where}: active_if of {name} names {other}, which is optional. Name a parameter of every backbone."
            )
        if not isinstance(parameter.active_if, dict):
            return
        wanted = parameter.active_if[other]
        never = [v for v in wanted if condition.distribution == "choice" and v not in condition.values]
        if never or not wanted:
            found = ", ".join(map(str, never)) or "no value"
            raise UsageError(
                f"{where}: active_if of {name} needs values that {other} can have, found {found}. Correct the list."
            )

    def _check_keys(self, where: str) -> None:
        """Checks that no two parameters can set the same key at once.

        Raises:
            UsageError: two can; names them.
        """
        for (one, p), (other, q) in itertools.combinations(self.parameters.items(), 2):
            if p.key == q.key and not _exclusive(p, q):
                raise UsageError(
                    f"{where}: parameters {one} and {other} both set {p.key}. Let active_if of both name a parameter "
                    "with different values, or remove one."
                )


def _by_condition(parameters: Mapping[str, Parameter]) -> list[str]:
    """Names of parameters; those of a condition come before the parameters that have it."""
    return list(graphlib.TopologicalSorter({name: p.active_if for name, p in parameters.items()}).static_order())


def _exclusive(one: Parameter, other: Parameter) -> bool:
    """Whether the conditions of two parameters cannot hold together."""
    if not (isinstance(one.active_if, dict) and isinstance(other.active_if, dict)):
        return False
    shared = one.active_if.keys() & other.active_if.keys()
    return any(not any(v in other.active_if[name] for v in one.active_if[name]) for name in shared)


def _plain(parameter: Parameter) -> dict[str, Any]:
    """A parameter as plain data, without the defaults of later keys."""
    table = to_builtins(parameter)
    return {key: value for key, value in table.items() if key not in LATER_KEYS or value != LATER_KEYS[key]}


def rename(table: Any, names: Mapping[str, str]) -> Any:
    """Renames some keys of a table; returns other values unchanged, because `from_table` reports them."""
    return {names.get(key, key): value for key, value in table.items()} if isinstance(table, dict) else table


def names() -> list[str]:
    """Names of the spaces that come with the harness."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Space:
    """Reads a space given by name or by path.

    Raises:
        UsageError: the space does not exist or is invalid.
    """
    path = Path(name) if name.endswith(".toml") or "/" in name else FOLDER / f"{name}.toml"
    if not path.is_file():
        if path.parent == FOLDER:
            raise unknown("space", name, names())
        raise UsageError(f"The space file {name} does not exist. Built-in spaces: {', '.join(names())}.")
    return Space.from_dict({"name": path.stem, **read_toml(path)}, path.name)


def is_shipped(space: Space) -> bool:
    """Whether a space comes with the harness; optional parameters and all named points may have been left out."""
    if space.name not in names():
        return False
    own, mine = load(space.name).fitting(()), space.fitting(())
    return mine.parameters == own.parameters and mine.points in ((), own.points)


def label(point: Mapping[str, Any]) -> str:
    """Formats a point: `intra 1, inter 0, temperature 0.1`."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.items()
        if value is not None
    )
