"""The rooms of `harness/` and the arrows between them are those of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from harness.system.paths import REPOSITORY

MOST_ROOMS = 25
PLUGIN_PATHS = {"harness.cards", "harness.contracts", "harness.errors", "harness.weights"}

FILES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("harness", "backbones", "datasets")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
}
"""Every module by its dotted name; a package stands for its `__init__.py`."""

ROOMS = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", (REPOSITORY / "docs/architecture.md").read_text(), re.MULTILINE))
"""First docstring line by room, from the top to the bottom of the table."""


def imported(name: str) -> Iterator[str]:
    """Names that a module imports, also inside functions, but not under `TYPE_CHECKING`."""
    nodes: list[ast.AST] = [ast.parse(FILES[name].read_text(encoding="utf-8"))]
    for node in nodes:  # grows meanwhile
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if not node.level)
            assert not node.level, f"{name} has a relative import"


def imports(name: str) -> set[str]:
    """Modules of this repository that a module imports."""
    found = set()
    for target in imported(name):
        while target and target not in FILES:
            target = target.rpartition(".")[0]
        found.add(target)
    return found - {"", name}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


IMPORTS = {name: imports(name) for name in FILES}
HARNESS = [name for name in FILES if name.split(".")[0] == "harness"]


def rooms_on_disk() -> dict[str, Path]:
    return {room(name): FILES[name] for name in HARNESS if name.count(".") < 2}


def test_the_table_lists_every_room_with_its_first_docstring_line():
    first = {}
    for name, path in rooms_on_disk().items():
        first[name] = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        assert first[name].endswith("."), f"{path}: the first docstring line is no sentence: '{first[name]}'"
    assert first == ROOMS
    assert len(ROOMS) <= MOST_ROOMS


def test_arrows_between_rooms_go_down():
    order = list(ROOMS)
    arrows = [(name, target) for name in HARNESS for target in IMPORTS[name] if target in HARNESS]
    assert len(arrows) > 100
    upwards = [f"{a} -> {b}" for a, b in arrows if order.index(room(a)) > order.index(room(b))]
    assert upwards == []


def test_no_circle_between_modules():
    """Those of `datasets` count, too: the registry reads through them, and they check through the registry."""
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("library", "place"), [("ray", "harness.execution.ray_executor"), ("mlflow", "harness.tracking")]
)
def test_ray_and_mlflow_have_one_place_each(library: str, place: str):
    users = {name for name in FILES if library in {target.split(".")[0] for target in imported(name)}}
    assert users
    assert {name for name in users if f"{name}.".startswith(f"{place}.")} == users


def test_plugins_import_only_what_never_moves():
    plugins = [name for name in FILES if name.startswith(("backbones.", "datasets.readers"))]
    assert len(plugins) > 20
    strange = [
        f"{name} -> {target}"
        for name in plugins
        for target in IMPORTS[name]
        if target not in PLUGIN_PATHS and not target.startswith(("backbones.", "datasets.readers"))
    ]
    assert strange == []
