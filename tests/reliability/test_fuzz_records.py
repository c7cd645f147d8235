"""Damaged or unusual records, recipes, cards, jobs and arguments are read, or refused with a documented error.

The test suite uses a few fixed examples. To use new examples for some seconds per target, run

    HARNESS_FUZZ_SECONDS=20 python -m pytest tests/reliability/test_fuzz_records.py -s
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from harness import registry, reporting, tracking, weights
from harness.cards import read_card, same_type
from harness.cli import list as listing
from harness.cli import options, status
from harness.records import store
from harness.records.per_query import COLUMNS
from harness.records.per_query import read as read_rows
from harness.registry import dataset_checks
from harness.reporting.report_data import ReportData
from harness.spec import recipe
from harness.spec.job import Job
from harness.spec.run_spec import RunSpec, canonical
from harness.system.paths import REPOSITORY
from harness.tracking.content import tags_of
from harness.tuning import space, state
from tests.support import record_samples as samples
from tests.support import searches
from tests.support import small_datasets as small
from tests.support.mutations import SECONDS, changed_json, changed_toml, damaged, fuzz, only_documented, told

pytestmark = pytest.mark.timeout(max(300, 2 * SECONDS + 300))


RECORDS = {
    "ok": samples.ok(samples.spec(), samples.evaluation(), samples.evaluation(flip=True)),
    "failed": samples.failed(samples.spec("beta")),
    "profile": samples.ok(
        samples.spec("gamma", purpose="profile"),
        source="profile",
        measure="inference",
        conditions={"fixed_work_ms": [1.0, 1.5], "others_cores": 0.5, "drift": 1.0, "notes": ["other work"]},
    )
    | {"evaluations": []},
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records(tmp_path: Path, kind: str) -> None:
    """What is accepted can be listed, shown, tracked and reported."""

    def check(text: str) -> None:
        with contextlib.suppress(
            ValueError, TypeError, KeyError, RecursionError
        ):  # a record whose run id fits its spec
            content = json.loads(text)
            content["run_id"] = samples.records.hashlib.sha256(canonical(content["spec"]).encode()).hexdigest()
            text = json.dumps(content) if "e999" not in text else text
        with only_documented():
            record = store.parse(text.encode("utf-8", "surrogatepass"), "here")
            "".join(*status._rows([store._entry("x", record)])).encode("utf-8", "backslashreplace")
            tracking.parameters_of(record["spec"])
            tracking.metrics_of(record)
            tags_of(record["spec"], 1)
            reporting.build(ReportData([record, RECORDS["ok"]]), tmp_path / "page.md")

    told(f"record, {kind}", fuzz(changed_json(RECORDS[kind]), check))


@pytest.mark.slow
def test_files_of_results(tmp_path: Path) -> None:
    cell = {"backbone": "a", "dataset": "b", "recipe": "c", "state": "blocked", "reason": "d"}
    search = searches.new_search()
    searches.play(search, tmp_path / "search", die_after=10**9)
    good_search = search.to_dict() | {"trials": search.to_dict()["trials"][:2]}
    store.write(store.folder_of(tmp_path, RECORDS["ok"]), RECORDS["ok"])
    listed = store.index(tmp_path)
    good_index = json.loads((tmp_path / store.INDEX).read_text())
    rows = "\n".join(",".join(map(str, row)) for row in [COLUMNS, (0, 5, 1, 0.5, 0.25, 1, 3), (1, 6, 0, "", "", "", 0)])

    def plan(text: str) -> None:
        (tmp_path / store.PLAN).write_text(text, encoding="utf-8", errors="surrogatepass")
        with only_documented():
            reporting.build(ReportData([], plan=store.read_plan(tmp_path)), tmp_path / "page.md")

    def searched(text: str) -> None:
        (tmp_path / "search.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        with only_documented():
            reporting.build(ReportData([], searches=[state.read(tmp_path / "search.json")]), tmp_path / "page.md")

    def index(text: str) -> None:
        (tmp_path / store.INDEX).write_text(text, encoding="utf-8", errors="surrogatepass")
        entries = store.index(tmp_path)
        assert entries.keys() == listed.keys()
        for entry in entries.values():
            status._rows([entry])

    def per_query(content: bytes) -> None:
        (tmp_path / "per_query.csv").write_bytes(content)
        with only_documented():
            read_rows(tmp_path, "per_query.csv")

    told("plan.json", fuzz(changed_json([cell, {**cell, "state": "to do"}]), plan))
    told("search.json", fuzz(changed_json(good_search), searched))
    told(".index.json", fuzz(changed_json(good_index), index))
    told("per_query.csv", fuzz(damaged(rows.encode()), per_query))


RECIPES = [
    *sorted((REPOSITORY / "harness" / "spec" / "recipes").glob("*.toml")),
    *sorted(REPOSITORY.glob("backbones/*/native.toml")),
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_recipes(put: Callable[..., Path], path: Path) -> None:
    def check(text: str) -> None:
        with only_documented():
            found = recipe.load(put(text, "mine.toml"), "market1501")
            run = RunSpec("a", "b", found.name, found.values(), 0, "cpu", "1", "2")
            assert recipe.from_values(found.name, json.loads(canonical(run.values))).values() == found.values()

    told(f"recipe {path.name}", fuzz(changed_toml(path.read_text()), check))


CARDS = [REPOSITORY / "backbones" / n / "card.toml" for n in ("reidmamba", "timm", "transreid")]
CARDS += [REPOSITORY / "datasets" / n / "card.toml" for n in ("market1501", "msmt17", "cuhk03_detected")]


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.parent.name)
def test_cards(tmp_path: Path, path: Path) -> None:
    """A card that is accepted can be listed, looked for and found."""
    folder = tmp_path / path.parent.name
    folder.mkdir()
    small.market(tmp_path / "Market-1501-v15.09.15")

    def check(text: str) -> None:
        (folder / "card.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
        with only_documented():
            card = read_card(folder / "card.toml")
            if card.kind == "backbone":
                listing.backbone_row(entry := registry.BackboneEntry(card, folder, "x"))
                canonical(entry.options())
                weights.identity(card, tmp_path)
                return
            listing.dataset_row(data := registry.DatasetEntry(card, folder, "x"), "")
            dataset_checks.check_counts(data, data.load(tmp_path))

    told(f"card {path.parent.name}", fuzz(changed_toml(path.read_text()), check))


def test_spaces(put: Callable[..., Path]) -> None:
    def check(text: str) -> None:
        with only_documented():
            found = space.load(str(put(text, "mine.toml")))
            found.at(dict.fromkeys(found.parameters, 0.3))
            for point in found.points:
                found.positions(point.values)
            canonical(found.to_dict())

    told("space", fuzz(changed_toml((space.FOLDER / "ratr.toml").read_text()), check))


def test_jobs(put: Callable[..., Path]) -> None:
    good = Job(spec=samples.spec(evaluate_on=(("msmt17", "f"),)), folder="x").to_dict()

    def check(text: str) -> None:
        with only_documented():
            job = Job.read(put(text))
            assert len(job.spec.run_id) == 64 and job.to_dict()

    told("job.json", fuzz(changed_json(good), check))


def test_words_of_the_command_line() -> None:
    words = st.sampled_from(
        ["1e999", "nan", "[" * 3000, "9" * 5000, "(" * 300, "-" * 5000 + "1", "{}", "'", "\0", "é", "[1,", "1979-05-27"]
    )

    def check(text: str) -> None:
        with only_documented():
            options.literal(text)
        for default in (True, 1, 0.5, "x", [1]):
            with only_documented():
                assert type(same_type(text, default, "x")) is type(default)
        with only_documented():
            recipe.nested({"loss": options.literal(text), "loss.margin": 1})

    told("values of options", fuzz(words | st.text(max_size=20), check))
