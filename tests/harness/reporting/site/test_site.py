"""The files of the site, without a browser."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import metrics
from harness.audits.checks import ranked_lists as audit
from harness.errors import RecordError, UsageError
from harness.records import epochs, ranked_lists, store
from harness.reporting import site, site_link
from harness.reporting.site import bundle
from harness.reporting.site.views import training, tuned
from harness.reporting.site.views.queries import OF_A_PAIR, worst
from tests.support import site_results, small_datasets


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data(folder: Path, name: str) -> object:
    """The data of a view, as the page reads them."""
    (path,) = folder.glob(f"site-*/data/{name}.js")
    call = re.fullmatch(r"site\.put\((\"[^\"]+\"), (\".*\")\)\n", path.read_text())
    assert call and json.loads(call[1]) == name
    return json.loads(json.loads(call[2]))


def test_the_same_records_give_the_same_bytes(site_records: Path, site_folder: Path, tmp_path: Path):
    again = site.write(site_records, tmp_path / "again").parent
    assert contents(again) == contents(site_folder)
    assert sum(map(len, contents(again).values())) < 5_000_000


def test_a_new_site_replaces_the_old_one_and_leaves_other_files(site_folder: Path, site_records: Path, tmp_path: Path):
    place = shutil.copytree(site_folder, tmp_path / "site")
    (place / "CNAME").write_text("example.org")
    results = shutil.copytree(site_records, tmp_path / "results")
    shutil.rmtree(next((results / "market1501").glob("alpha/*")))
    page = site.write(results, place)
    assert len(list(place.glob("site-*"))) == 1 and (place / "CNAME").exists()
    assert next(place.glob("site-*")).name in page.read_text()
    assert not list(place.rglob("*.tmp"))
    assert site_link.last(results) == str(page.resolve()), "MLflow shows where it is"
    page.unlink()
    assert site_link.last(results) == ""


def test_nothing_on_the_site_loads_from_elsewhere(site_folder: Path):
    for path, content in contents(site_folder).items():
        if "/vendor/" in path or "/data/" in path:
            continue
        loads = re.findall(rb"(?:src|href)=[\"']?(?:https?:|//)|@import|url\(|fetch\(|XMLHttpRequest", content)
        assert loads == [], path
    page = (site_folder / "index.html").read_text()
    assert "default-src 'none'" in page and "MIT License" in page


@pytest.mark.parametrize(("name", "words"), [("file", "is a file"), ("other", "was not written by this program")])
def test_a_place_in_use_is_refused(site_records: Path, tmp_path: Path, name: str, words: str):
    place = tmp_path / name
    if name == "file":
        place.write_text("")
    else:
        place.mkdir()
        (place / "index.html").write_text("<h1>My page</h1>")
    with pytest.raises(UsageError, match=words):
        site.write(site_records, place)


def test_a_site_without_results_says_so(tmp_path: Path):
    (tmp_path / "results").mkdir()
    page = site.write(tmp_path / "results", tmp_path / "site").read_text()
    assert "<p>There are no results yet.</p>" in page


def test_every_record_is_on_the_site_as_it_is_on_disk(site_records: Path, site_folder: Path):
    found = data(site_folder, "records/all")
    on_disk = {record["run_id"][:12]: record for record in store.records(site_records)}
    assert found == on_disk and len(on_disk) > 20


def test_a_long_curve_keeps_its_last_epoch(tmp_path: Path):
    for epoch in range(1, 401):
        epochs.append(tmp_path, epoch, {"loss": 1 / epoch})
    curves = training._read(tmp_path)
    assert curves["epoch"][-1] == 400 and len(curves["epoch"]) == len(curves["loss"]) <= training.MOST_POINTS + 1
    assert tuned._median([3.0, 1.0, 2.0]) == [2.0, 1.0, 3.0]


@pytest.mark.parametrize("lines", [None, "", "{", "[]", '{"epoch": 1}\n', '{"epoch": "x", "loss": 1}\n'])
def test_a_run_without_curves_has_none(tmp_path: Path, lines: str | None):
    """Also of an empty or half-written file; the page finds an entry, so it asks for no file that is not there."""
    site_results.write_pair(tmp_path / "results", 3, "")
    for record in (tmp_path / "results").rglob("record.json"):
        if lines is not None:
            (record.parent / "metrics.jsonl").write_text(lines)
    place = site.write(tmp_path / "results", tmp_path / "site").parent
    assert list(data(place, "training/all").values()) == [None, None]  # type: ignore[attr-defined]


def test_every_view_has_a_script(site_folder: Path):
    scripts = {path.stem for path in site_folder.glob("site-*/assets/views/*.js")}
    assert scripts == {name for name, _ in bundle.PAGES} - {"overview", "about"}


def test_command_line(cli, site_records: Path, tmp_path: Path):
    code, out, _ = cli("report", "--results", site_records, "--html", tmp_path / "site")
    assert code == 0 and (tmp_path / "site" / "index.html").is_file() and "site/index.html" in out
    for words, message in (
        (["--html", tmp_path / "s", "--check"], "--html writes the website alone"),
        (["--with-images"], "--with-images belongs to the website"),
        (["--html", ""], "--html is empty. Pass the path to write to."),
        (["--csv", ""], "--csv is empty."),
        (["--html", tmp_path / "s", "--with-images", "--data-root", tmp_path], "market1501 cannot be read"),
    ):
        code, _, err = cli("report", "--results", site_records, *words)
        assert code == 2 and message in err, words


# Queries


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.booleans())
def test_the_kept_queries_have_the_worst_of_every_choice(seed: int, count: int, ties: bool):
    scores = np.random.default_rng(seed).random((count, 60))
    scores = np.round(scores, 1) if ties else scores
    scores[:, seed % 60] = np.nan
    kept = set(worst(scores))
    for size in range(1, count + 1):
        for chosen in itertools.combinations(range(count), size):
            part = scores[list(chosen)]
            value = part.max(0) - part.min(0) if size > 1 else -part[0]
            valid = sorted(value[~np.isnan(value)], reverse=True)[:OF_A_PAIR]
            assert sorted((value[i] for i in kept), reverse=True)[:OF_A_PAIR] == valid


def test_ranked_lists_are_those_of_the_evaluation(tmp_path: Path):
    small_datasets.market(tmp_path / "Market-1501-v15.09.15")
    from datasets import layouts
    from harness import registry

    splits = layouts.load(registry.dataset("market1501"), tmp_path, splits=("query", "gallery"))
    draw = np.random.default_rng(0)
    features = tuple(draw.normal(size=(len(items), 8)).astype(np.float32) for items in (splits.query, splits.gallery))
    text = audit.render(features, splits.query, splits.gallery, "cosine", cameras=True)
    (tmp_path / ranked_lists.file_name("market1501")).write_text(text)
    lists = ranked_lists.read(tmp_path, "market1501", set(range(len(splits.query))))
    labels = [[getattr(i, key) for i in items] for key in ("pid", "camid") for items in (splits.query, splits.gallery)]
    ranking = metrics.evaluate_ranking(*features, *labels)
    for query, (own, *nearest) in lists.items():
        assert own.path.endswith(splits.query[query].path.name) and own.distance is None
        first = next((rank for rank, image in enumerate(nearest, 1) if image.pid == own.pid), 0)
        expected = ranking.first_match_rank[query]
        assert first == (expected if expected <= ranked_lists.LENGTH else 0)
        assert all(image.camid != own.camid for image in nearest if image.pid == own.pid)


@pytest.mark.parametrize("damage", ["query,rank\n", "", "0,2,a.jpg,1,0,\n", "0,0,a.jpg,x,0,\n", "0,0\n"])
def test_damaged_lists_are_an_error_of_the_record(tmp_path: Path, damage: str):
    header = "" if damage in ("", "query,rank\n") else f"{','.join(ranked_lists.COLUMNS)}\n"
    (tmp_path / ranked_lists.file_name("market1501")).write_text(header + damage)
    with pytest.raises(RecordError, match="is damaged"):
        ranked_lists.read(tmp_path, "market1501", {0})


def test_pictures_are_shown_if_asked_for(tmp_path: Path):
    """With lists of real files; each picture lies on the site once and is small."""
    small_datasets.market(tmp_path / "data" / "Market-1501-v15.09.15")
    from datasets import layouts
    from harness import registry

    splits = layouts.load(registry.dataset("market1501"), tmp_path / "data", splits=("query", "gallery"))
    order = np.tile(np.arange(3), (len(splits.query), 1))
    text = ranked_lists.render(order, order * 0.1, splits.query, splits.gallery)
    results = tmp_path / "results"
    site_results.write_pair(results, len(splits.query), text)
    place = site.write(results, tmp_path / "site", images=tmp_path / "data").parent
    images = data(place, "queries/0")["images"]  # type: ignore[index]
    assert images and all((next(place.glob("site-*")) / picture).is_file() for *_, picture in images)
    assert not list(site.write(results, tmp_path / "plain").parent.rglob("*.jpg"))
