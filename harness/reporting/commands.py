"""The commands that reproduce the runs of a table, with placeholders for the reader's folders.

A command is derived from the spec and the files of this repository, so it is still correct after a recipe changes.
Recipe files and plug-ins of the user are not part of the repository; they are printed as they were typed.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness import registry, weights
from harness.errors import HarnessError
from harness.planning import request as requests
from harness.registry import BackboneEntry
from harness.reporting import text
from harness.reporting.rows import EPOCHS, RunGroup, Table, flatten
from harness.spec import preset as presets
from harness.spec import recipe
from harness.spec.condition import Condition
from harness.spec.recipe import Recipe
from harness.spec.run_spec import canonical
from harness.tuning import space
from harness.tuning.state import Search

MOST_COMMANDS = 30
DATASETS = "--datasets"

NOTE = (
    "Replace words in capitals by your folders and files. The run id is the same only for the same data, weights, "
    "code, torch version and hardware. Finished runs are not repeated."
)
FILES = {"published-checkpoint": ("--checkpoint", "CHECKPOINT_FILE"), "features": ("--features", "FEATURES_FILE")}


@dataclass(frozen=True)
class _Call:
    """The part of a command for one backbone. Calls with equal `shared` arguments can be joined to one command.

    Attributes:
        backbone: name with its variant.
        shared: arguments that are the same for all backbones of a command.
        options: arguments of its build options.
        start: arguments about starting weights; empty if the backbone has none.
        plugins: arguments for external plug-ins, which do not affect other backbones.
    """

    backbone: str
    shared: tuple[str, ...]
    options: tuple[str, ...]
    start: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()

    def compatible(self, other: _Call) -> bool:
        """Whether one command can run both; a build option of a backbone also applies to its variants."""
        same_card = _base(self.backbone) == _base(other.backbone)
        apart = self.backbone == other.backbone or (same_card and bool(self.options or other.options))
        return not apart and (not self.start or not other.start or self.start == other.start)


@dataclass(frozen=True)
class _Setup:
    """Recipe and overrides that give a spec.

    Attributes:
        recipe: name or path.
        options: build options by name.
        settings: overridden recipe keys, dotted.
        preset: contents of a preset that sets recipe, device, starting weights and generated data; may be empty.
    """

    recipe: str
    options: dict[str, Any]
    settings: dict[str, Any]
    preset: Mapping[str, Any] = field(default_factory=dict)


def of_tables(tables: Sequence[Table]) -> str:
    """Markdown with the commands for the runs of all tables; commands that differ in the dataset alone are joined."""
    joined: dict[tuple[str | None, ...], list[str]] = {}
    for line in dict.fromkeys(line for table in tables for line in _of(table.settings())):
        words = shlex.split(line)
        place = words.index(DATASETS) + 1 if DATASETS in words else len(words)
        key = (*words[:place], *([None] if place < len(words) else []), *words[place + 1 :])
        joined.setdefault(key, []).extend(words[place : place + 1])
    return _paragraph([shlex.join(",".join(names) if w is None else w for w in key) for key, names in joined.items()])


def of_table(settings: Sequence[RunGroup]) -> str:
    """Markdown with the commands for the runs of a table."""
    return _paragraph(_of(settings))


def _of(settings: Sequence[RunGroup]) -> list[str]:
    """The commands for the runs of a table."""
    generated = {_data(run) for setting in settings for run in setting.runs if run["data"].get("generated")}
    trained = [setting for setting in settings if setting.source == "trained"]
    calls = [_training(setting, _data(setting.runs[0]) in generated) for setting in trained]
    scored = [_scoring(setting) for setting in settings if setting.source in FILES]
    return [*_joined("run", calls), *scored]


def of_studies(settings: Sequence[RunGroup], search_words: Sequence[str]) -> str:
    """Markdown with the commands for a table of `--recipe tuned`.

    Args:
        settings: the untuned runs of each backbone, which have everything in common with the others but the point.
        search_words: arguments of the search.
    """
    generated = {_data(run) for setting in settings for run in setting.runs if run["data"].get("generated")}
    return _paragraph(
        _joined("run", [_tuned(setting, _data(setting.runs[0]) in generated, search_words) for setting in settings])
    )


def _tuned(setting: RunGroup, generated: bool, search_words: Sequence[str]) -> _Call:
    """The part of a command that tunes a backbone: that of its untuned runs, with another recipe and without seeds."""
    call = _training(setting, generated)
    words = list(call.shared)
    for flag in ("--seeds", "--recipe"):
        if flag in words:
            del words[(at := words.index(flag)) : at + 2]
    base = _recipe(setting.spec, _asked(setting))
    preset = ["--preset", base] if base in presets.names() and "--preset" not in words else []
    return replace(call, shared=("--recipe", "tuned", *search_words, *preset, *words))


def of_profile(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown with the commands for the cells of the efficiency study."""
    cells: dict[tuple[Any, ...], list[Condition]] = defaultdict(list)
    for record in records:
        spec = record["spec"]
        if (cell := _cell(spec["values"])) is None:
            continue
        options = _option_words(spec["backbone"], _other_options(spec, {}))
        where = ("--device", spec["device"], "--threads", str(cell.threads), "--seconds", str(cell.seconds))
        cells[(spec["backbone"], where, options)].append(cell)
    calls = [
        _Call(backbone, (*grid, *where), options, plugins=_plugins(backbone))
        for (backbone, where, options), found in sorted(cells.items())
        for grid in _grids(found)
    ]
    return _paragraph(_joined("profile", calls))


def of_search(search: Search, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown with the command of a search.

    Args:
        search: the search, as read from its file.
        records: by run id; trials give the original arguments, final runs the epochs of the recipe.
    """
    spec, how = search.spec.to_dict(), search.settings
    setup = _setup(spec, _asked_for_search(search, records))
    finals = [records[run] for final in search.finals for run in final.run_ids if run in records]
    trial, final = (_epochs(spec), _epochs(finals[0]["spec"]) if finals else None)
    overrides = {key: value for key, value in setup.settings.items() if key != "training.epochs" or final == trial}
    if final is not None and final != trial:
        overrides["training.epochs"] = final
    own = space.is_shipped(search.space)
    return _paragraph(
        [
            _line(
                *("tune", "--backbone", spec["backbone"], "--dataset", spec["dataset"]),
                *("--space", search.space.name if own else "SPACE_FILE", "--samples", str(how.samples)),
                *("--sampler", how.sampler, "--search-seed", str(how.seed), "--seed", str(spec["seed"])),
                *("--holdout", str(search.holdout.fraction), "--holdout-seed", str(search.holdout.seed)),
                *("--trial-epochs", str(trial), "--grace-period", str(how.asha.grace_period)),
                *("--reduction-factor", str(how.asha.reduction_factor)),
                *("--final-seeds", ",".join(map(str, how.final_seeds)) or "none"),
                *(*_recipe_words(spec, setup), *_start(spec), *_plugins(spec["backbone"], spec["dataset"])),
                *_option_words(spec["backbone"], setup.options),
                *_setting_words(overrides),
            )
        ]
    )


def _asked_for_search(search: Search, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The original arguments of a search: those of a trial without its point."""
    found = (records[trial.run_id] for trial in search.trials if trial.run_id in records)
    if not (asked := next((record["request"] for record in found if record.get("request")), None)):
        return {}
    kinds = {"options": "option.", "set": "recipe."}
    own = {parameter.key for parameter in search.space.parameters.values()}
    kept = {
        kind: {k: v for k, v in (asked.get(kind) or {}).items() if start + k not in own}
        for kind, start in kinds.items()
    }
    return {**asked, **kept}


def _epochs(spec: Mapping[str, Any]) -> Any:
    training = spec["values"].get("training")
    return training.get("epochs") if isinstance(training, dict) else None


def changed_options(setting: RunGroup) -> dict[str, Any]:
    """Build options of a trained configuration that differ from card, variant and recipe."""
    known = setting.source == "trained" and _entry(setting.backbone) is not None
    return _setup(setting.spec, {}).options if known else {}


def about_recipe(setting: RunGroup) -> str:
    """The description of the recipe, if it is known."""
    asked, spec = _asked(setting), setting.spec
    if recipe.is_path(asked.get("recipe") or ""):
        return str(asked.get("about") or "")
    name, found = _nearest(spec["recipe"], spec["backbone"], spec["dataset"])
    return found.about if name == spec["recipe"] else ""


def _paragraph(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    rest = len(commands) - MOST_COMMANDS
    more = f"\n\n{text.count(rest, 'more command')} not shown; see `spec` in the records." if rest > 0 else ""
    return "```bash\n" + "\n".join(commands[:MOST_COMMANDS]) + "\n```" + more


def _joined(command: str, calls: Sequence[_Call]) -> list[str]:
    """Joins calls with equal arguments to one command."""
    groups: dict[tuple[str, ...], list[list[_Call]]] = defaultdict(list)
    for call in calls:
        alike = groups[call.shared]
        group = next((group for group in alike if all(call.compatible(other) for other in group)), None)
        if group is None:
            alike.append([call])
        else:
            group.append(call)
    return [
        _line(
            *(command, "--backbones", ",".join(call.backbone for call in group), *shared),
            *max((call.start for call in group), key=len),
            *max((call.plugins for call in group), key=len),
            *(word for call in group for word in call.options),
        )
        for shared, alike in groups.items()
        for group in alike
    ]


def _training(setting: RunGroup, generated: bool) -> _Call:
    """The part of a command that trains and scores a configuration."""
    spec, asked = setting.spec, _asked(setting)
    setup = _setup(spec, asked, generated)
    seeds = ",".join(str(seed) for seed in sorted({run["spec"]["seed"] for run in setting.runs}))
    others = [name for name, _ in spec.get("evaluate_on") or ()]
    shared = [
        *(DATASETS, spec["dataset"], "--seeds", seeds),
        *(("--eval-datasets", ",".join(others)) if others else ()),
        *_recipe_words(spec, setup),
        *(("--train-time", asked["train_time"]) if asked.get("train_time") else ()),
        *_setting_words(setup.settings),
    ]
    start = () if setup.preset else _start(spec)
    plugins = _plugins(spec["backbone"], spec["dataset"], *others)
    return _Call(spec["backbone"], tuple(shared), _option_words(spec["backbone"], setup.options), start, plugins)


def _scoring(setting: RunGroup) -> str:
    """The command that scores a checkpoint or features."""
    spec = setting.spec
    setup = _setup(spec, _asked(setting))
    mean = spec["options"].get("camera_embedding") == "mean"
    options = {key: value for key, value in setup.options.items() if not (mean and key == "camera_embedding")}
    outside = _plugins(*([spec["backbone"]] if setting.source != "features" else ()), spec["dataset"])
    return _line(
        *("evaluate", "--backbone", spec["backbone"], "--dataset", spec["dataset"], *FILES[setting.source]),
        *(("--camera-embedding", "mean") if mean else ()),
        *(*_recipe_words(spec, setup), *outside),
        *_option_words(spec["backbone"], options),
        *_setting_words(setup.settings),
    )


def _setup(spec: Mapping[str, Any], asked: Mapping[str, Any], generated: bool = False) -> _Setup:
    """Recipe, options and overrides that give the values of a spec."""
    entry, given = _entry(spec["backbone"]), asked.get("options") or {}
    if recipe.is_path(asked.get("recipe") or ""):
        return _Setup(asked["recipe"], given, _flat(asked.get("set") or {}))
    name, base = _nearest(_recipe(spec, asked), spec["backbone"], spec["dataset"])
    preset = _preset(spec, asked, generated)
    usual, values = _flat(base.values(complete=True)), _flat(spec["values"])
    if asked.get("train_time"):
        usual = {k: v for k, v in usual.items() if k not in ("name", EPOCHS)}  # both follow from it
    changed = {k: v for k, v in values.items() if k in usual and canonical(v) != canonical(usual[k])}
    if entry is None and asked:
        return _Setup(name, given, changed, preset)
    request = requests.Request(preset_options=dict(preset.get("options", {})))
    chosen = requests.chosen_options(request, entry) if entry else {}
    return _Setup(name, _other_options(spec, {**base.options, **chosen}), changed, preset)


def _asked(setting: RunGroup) -> Mapping[str, Any]:
    """The original arguments of a configuration, if recorded."""
    return next((run["request"] for run in setting.runs if run.get("request")), {})


def _recipe(spec: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Name of the recipe, without a time of training."""
    time = asked.get("train_time")
    return str(spec["recipe"]).removesuffix(f"-{time}") if time else str(spec["recipe"])


@functools.cache
def _nearest(name: str, backbone: str, dataset: str) -> tuple[str, Recipe]:
    """The recipe of this name for a backbone and dataset, or else the unified one, which needs overrides."""
    entry = _entry(backbone)
    for found in (name, "unified"):
        if found in recipe.names() and (entry or found != "native"):
            try:
                if entry:
                    return found, requests.load_recipe(requests.Request(recipe=found), entry, dataset)
                return found, recipe.load(recipe.find(found), dataset)
            except HarnessError:  # no native recipe, or an unknown variant
                continue
    return "unified", recipe.load(recipe.find("unified"))


def _other_options(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Build options that differ from card, variant and `given`; all options of a backbone without a card."""
    entry = _entry(spec["backbone"])
    try:
        usual = entry.options(dict(given)) if entry else {}
    except HarnessError:  # the card has changed since
        usual = entry.options() if entry else {}
    known = {k: v for k, v in spec["options"].items() if not entry or k in usual}
    return {k: v for k, v in sorted(known.items()) if k not in usual or canonical(v) != canonical(usual[k])}


def _preset(spec: Mapping[str, Any], asked: Mapping[str, Any], generated: bool) -> Mapping[str, Any]:
    """The preset of the original command, if it sets recipe, device and starting weights, and the data is generated."""
    if not generated or not (preset := _presets().get(str(asked.get("preset")))):
        return {}
    given = (preset.get("recipe"), preset.get("device"), preset.get("from_scratch", False))
    used = (_recipe(spec, asked), spec["device"], spec.get("pretrained", "none") == "none")
    return preset if given == used else {}


@functools.cache
def _presets() -> dict[str, dict[str, Any]]:
    return {name: presets.load(name) for name in presets.names()}


def _recipe_words(spec: Mapping[str, Any], setup: _Setup) -> list[str]:
    """Arguments for recipe or preset, data, device and reader options."""
    chosen = ["--preset", setup.preset["name"]] if setup.preset else ["--recipe", setup.recipe]
    device = [] if setup.preset else ["--device", spec["device"]]
    readers = spec.get("dataset_options") or {}
    options = [f"{name}.{key}={literal(value)}" for name, table in readers.items() for key, value in table.items()]
    return [*chosen, "--data-root", "DATA_ROOT", *device, *(w for o in options for w in ("--data-option", o))]


def _start(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments for the starting weights; empty for a backbone without any."""
    if spec.get("pretrained", "none") != "none":
        return ("--weights-root", "WEIGHTS_ROOT")
    entry = _entry(spec["backbone"])
    return ("--from-scratch",) if entry is None or weights.wanted(entry.card, spec["options"]) else ()


def _option_words(backbone: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments for build options: text as it is, other values as Python literals."""
    pairs = [f"{backbone}.{key}={value if isinstance(value, str) else repr(value)}" for key, value in options.items()]
    return tuple(word for pair in pairs for word in ("--option", pair))


def _setting_words(settings: Mapping[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={literal(value)}")]


def literal(value: Any, *, quoted: bool = False) -> str:
    """Formats a value for `--set` and `--data-option`: as TOML, or as bare text if that is not valid TOML.

    Args:
        value: plain data.
        quoted: always quote text, as inside a list.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(literal(each, quoted=True) for each in value)}]"
    if (
        isinstance(value, str)
        and not quoted
        and value
        and value == value.strip()
        and not re.fullmatch(r"\d+x\d+", value)
    ):
        try:
            tomllib.loads(f"value = {value}")
        except (ValueError, RecursionError):
            return value
    return json.dumps(value, ensure_ascii=False)


def _plugins(backbone: str = "", *datasets: str) -> tuple[str, ...]:
    """`--plugins` if any name belongs to an external plug-in."""
    parts = {part for dataset in datasets for part in dataset.split("+")}
    outside = (backbone and _base(backbone) not in _own("backbone")) or not _own("dataset").issuperset(parts)
    return ("--plugins", "PLUGINS_DIR") if outside else ()


@functools.cache
def _own(kind: str) -> frozenset[str]:
    """Names of the plug-ins in this repository and in installed packages."""
    entries: Sequence[Any] = registry.backbones() if kind == "backbone" else registry.datasets()
    return frozenset(e.card.name for e in entries if not e.package.startswith("harness_plugins."))


@functools.cache
def _entry(backbone: str) -> BackboneEntry | None:
    """A registered backbone of this repository or an installed package, or None."""
    if _base(backbone) not in _own("backbone"):
        return None
    try:
        return registry.backbone(backbone)
    except HarnessError:
        return None


def _cell(values: dict[str, Any]) -> Condition | None:
    """The condition of a record of the study; None if the record was written by another version."""
    try:
        cell = Condition.from_values(values)
        alike = (int(cell.batch_size), *map(int, cell.image_size), str(cell.measure), str(cell.precision))
    except (LookupError, TypeError, ValueError):
        return None
    return cell if alike == (cell.batch_size, *cell.image_size, cell.measure, cell.precision) else None


def _grids(cells: Sequence[Condition]) -> list[tuple[str, ...]]:
    """Arguments for cells of the study; image sizes and precisions with the same batches share a command."""
    found: dict[tuple[str, str], dict[tuple[str, int], bool]] = defaultdict(dict)
    for cell in cells:
        height, width = cell.image_size
        batches = found[(f"{height}x{width}", cell.precision)]
        key = (cell.measure, cell.batch_size)
        batches[key] = batches.get(key, False) or cell.compiled
    sizes: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for (size, precision), batches in found.items():
        for compiled in (False, True):
            if alike := tuple(sorted(key for key, both in batches.items() if both == compiled)):
                sizes[(precision, compiled, alike)].append(size)
    precisions: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for (precision, compiled, alike), of_size in sizes.items():
        precisions[(tuple(sorted(of_size, key=_pixels)), compiled, alike)].append(precision)
    return [
        (
            *("--image-size", ",".join(of_size), "--precision", ",".join(sorted(those))),
            *("--batch", _batches(alike, "inference"), "--train-batch", _batches(alike, "training")),
            *("--heights", "", *(["--compile"] if compiled else [])),
        )
        for (of_size, compiled, alike), those in sorted(precisions.items())
    ]


def _pixels(size: str) -> tuple[int, ...]:
    return tuple(map(int, size.split("x")))


def _batches(cells: Iterable[tuple[str, int]], measure: str) -> str:
    return ",".join(str(batch) for what, batch in cells if what == measure)


def _base(backbone: str) -> str:
    return backbone.partition(":")[0]


def _data(run: Mapping[str, Any]) -> tuple[str, str]:
    return run["spec"]["dataset"], run["spec"].get("fingerprint", "")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    flatten(values, "", flat)
    return dict(sorted(flat.items()))


def _line(*words: str) -> str:
    """Quotes a shell command on one line; a line break could end the code block."""
    plain = ("".join(c if c.isprintable() else "?" for c in word) for word in ("python", "-m", "harness", *words))
    return " ".join(map(shlex.quote, plain))
