"""The page: the same records give the same bytes, every number is the record's, every gap has a word."""

from __future__ import annotations

import dataclasses
import math
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness import reporting
from harness.cards import BackboneCard, DatasetCard, InputCard, Published
from harness.errors import UsageError
from harness.figures import style
from harness.records import store
from harness.reporting import rows
from harness.reporting.report_data import ReportData, gather
from harness.system.paths import REPOSITORY
from tests.support import record_samples as samples

INPUT = InputCard((256, 128), (0.5,), (0.5,))
ALPHA = BackboneCard(
    name="alpha",
    title="Alpha net",
    input=INPUT,
    feature_dim=8,
    side_information=("camera",),
    published=(
        Published("market1501", 60.0, 75.5, (256, 128), "Alpha paper, Table 2", "stride 12"),
        Published("market1501", 61.0, 76.0, (256, 128), "Alpha repository", "released checkpoint", checkpoint=True),
        Published("market1501", 70.0, 80.0, (384, 128), "Alpha paper, Table 3", flip=True),
        Published("msmt17", 40.0, 60.0, (256, 128), "Alpha paper, Table 2"),
    ),
)
BETA = BackboneCard(name="beta", title="Beta net", input=INPUT, feature_dim=8)
GAMMA = BackboneCard(
    name="gamma",
    title="Gamma net",
    input=INPUT,
    feature_dim=8,
    published=(Published("market1501", 50.0, 70.0, (256, 128), "Gamma paper"),),
)
MARKET = DatasetCard(name="market1501", title="Market-1501", layouts=())
DUKE = DatasetCard(name="dukemtmc", title="DukeMTMC-reID", layouts=(), notice="Withdrawn by its authors.")
CARDS: dict[str, Any] = {"backbones": (ALPHA, BETA, GAMMA), "datasets": (MARKET, DUKE)}


def material(*records: dict[str, Any], **changes: Any) -> ReportData:
    backbones = {card.name: card for card in CARDS["backbones"]}
    base = ReportData(list(records), backbones=backbones, datasets={card.name: card for card in CARDS["datasets"]})
    return dataclasses.replace(base, **changes)


def page(place: Path, *records: dict[str, Any], **changes: Any) -> str:
    """The page alone; its figures are laid out but not rendered, which takes most of the time."""
    with mock.patch.object(style, "png", lambda made, drawn: b""):
        return reporting.build(material(*records, **changes), place / "BENCHMARKS.md")[0].read_text(encoding="utf-8")


def table(text: str, heading: str) -> list[dict[str, str]]:
    """The rows of the first table below a heading."""
    lines = text[text.index(heading) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    last = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[first:last]]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def three_seeds(backbone: str = "alpha") -> list[dict[str, Any]]:
    scores = (0.58, 0.60, 0.65)
    return [
        samples.ok(
            samples.spec(backbone, seed=s), samples.evaluation(mAP=m), inference_images_per_second=100.0 * (s + 1)
        )
        for s, m in enumerate(scores)
    ]


def test_table_holds_hand_computed_numbers(tmp_path):
    row = table(page(tmp_path, *three_seeds()), "### Market-1501, recipe unified")[0]
    deviation = math.sqrt(((0.58 - 0.61) ** 2 + (0.60 - 0.61) ** 2 + (0.65 - 0.61) ** 2) / 2)  # mean 0.61
    assert row["mAP"] == f"61.0 ± {100 * deviation:.1f}" == "61.0 ± 3.6"
    assert row["rank-1"] == "71.0 ± 3.6"
    assert row["Seeds"] == "3"
    assert row["Published mAP / rank-1"] == "60.0 / 75.5[^1] (+1.0 / -4.5)"
    assert row["95 % interval of mAP"] == "[57.0, 65.0]"
    assert (row["Start"], row["Side information"]) == ("none", "camera")


def test_the_efficiency_of_all_datasets_is_one_row_with_ranges(tmp_path):
    other = samples.ok(samples.spec(dataset="dukemtmc"), inference_images_per_second=300.0, peak_memory_bytes=4 * 2**30)
    (row,) = table(page(tmp_path, *three_seeds(), other), "<b>Efficiency of the runs</b>")
    assert (row["Runs on"], row["GFLOPs"], row["Size"]) == ("2 datasets", "4.10", "256 × 128")
    assert (row["Test images/s"], row["Memory (GiB)"]) == ("200 to 300", "3.00 to 4.00")


def test_no_result_table_is_wider_than_eight_columns(tmp_path):
    records = [*three_seeds(), *three_seeds("beta")]
    merged = [{**record, "origin": "lab"} for record in records]
    assert {len(row) for row in table(page(tmp_path, *records), "### Market")} == {8}
    rows = table(page(tmp_path, *merged, merged=("lab", "home")), "### Market")
    assert {len(row) for row in rows} == {8} and rows[0]["Origin"] == "lab"


def test_a_disturbed_speed_is_marked(tmp_path):
    runs = three_seeds()
    runs[1]["efficiency"] |= {"device": "cpu", "conditions": {"others_cores": 1.5}}
    text = page(tmp_path, *runs)
    assert table(text, "<b>Efficiency of the runs</b>")[0]["Test images/s"] == "200 (shared)"


def test_one_seed_has_no_spread(tmp_path):
    row = table(page(tmp_path, three_seeds()[0]), "### Market")[0]
    assert (row["mAP"], row["Seeds"]) == ("58.0", "1")


def test_every_way_of_scoring_is_on_the_page(tmp_path):
    rows = [
        samples.evaluation(rerank=True, flip=True, mAP=0.68),
        samples.evaluation(flip=True, mAP=0.62),
        samples.evaluation(trained=False, mAP=0.02),
        samples.evaluation(mAP=0.61),
    ]
    text = page(tmp_path, samples.ok(samples.spec(), *rows))
    assert table(text, "### Market")[0]["mAP"] == "61.0"
    others = {row["Test"]: row["Market-1501"] for row in table(text, "<b>Other tests</b>")}
    assert list(others) == ["flip", "flip + re-ranking", "before training"]
    assert others["flip"].startswith("62.0 / 72.0 (published 70.0 / 80.0 at 384 × 128[^")
    assert (others["flip + re-ranking"], others["before training"]) == ("68.0 / 78.0", "2.0 / 12.0")


def test_a_published_checkpoint_stands_beside_its_own_number(tmp_path):
    one = samples.ok(samples.spec(), samples.evaluation(mAP=0.61), source="published-checkpoint")
    text = page(tmp_path, one)
    assert table(text, "### Market")[0]["Published mAP / rank-1"] == "61.0 / 76.0[^1] (0.0 / -5.0)"
    assert "\n- alpha: published checkpoint, evaluated here\n" in text


@pytest.mark.parametrize(("width", "shown"), [("resnet50", "85.9 / 94.5"), ("tiny", "–")])
def test_narrower_network_is_not_beside_the_published_number(tmp_path, width, shown):
    run = samples.ok(samples.spec("bot", options={"neck_feature": "after", "width": width}))
    keep(tmp_path / "results", run)
    with mock.patch.object(style, "png", lambda made, drawn: b""):
        text = reporting.write(tmp_path / "results", tmp_path / "BENCHMARKS.md")[0].read_text()
    assert table(text, "### Market")[0].get("Published mAP / rank-1", "–").startswith(shown)


def test_the_input_size_of_features_from_outside_is_not_known(tmp_path):
    one = samples.ok(samples.spec(), source="features")
    assert table(page(tmp_path, one), "<b>Efficiency of the runs</b>")[0]["Size"] == "not recorded"


def test_generated_data_has_no_published_number_and_says_so(tmp_path):
    one = samples.ok(samples.spec())
    one["data"]["generated"] = {"seed": 0}
    text = page(tmp_path, one)
    row = table(text, "### Market-1501 (generated), recipe unified")[0]
    assert "**Generated stand-ins, not the real datasets.**" in text
    assert "Published mAP / rank-1" not in row and "60.0 / 75.5" not in text
    assert "**Recipe unified, generated data**." in text
    assert table(text, "## Overview")[0]["Market-1501"] == "50.0 / 60.0"


def test_generated_and_real_runs_never_share_a_table(tmp_path):
    real, generated = samples.ok(samples.spec()), samples.ok(samples.spec(fingerprint="a" * 64))
    generated["data"]["generated"] = {"seed": 0}
    unlucky = samples.failed(samples.spec(seed=1, fingerprint="a" * 64), stage="data")
    text = page(tmp_path, real, generated, unlucky)
    assert len(table(text, "### Market-1501, recipe unified")) == 1
    assert "\n- alpha: 1 ok, 1 oom\n" in text[text.index("### Market-1501 (generated)") :]


def test_every_gap_has_a_word(tmp_path):
    records = [*three_seeds("beta"), samples.failed(samples.spec("alpha"), message="CUDA out of memory")]
    plan = [
        {"backbone": "delta", "dataset": "market1501", "recipe": "unified", "state": "blocked", "reason": "no weights"},
        {"backbone": "delta", "dataset": "dukemtmc", "recipe": "unified", "state": "blocked", "reason": "no data"},
        {"backbone": "beta", "dataset": "market1501", "recipe": "unified", "state": "blocked", "reason": "old"},
    ]
    text = page(tmp_path, *records, plan=plan)
    rows = {row["Backbone"]: row for row in table(text, "### Market-1501, recipe unified")}
    assert "\n- alpha: 1 oom in train: CUDA out of memory\n- delta: blocked: no weights\n" in text
    assert rows["alpha"]["mAP"] == "oom" and rows["alpha"]["Published mAP / rank-1"].startswith("60.0")
    assert rows["delta"]["mAP"] == "blocked" and "gamma" not in rows, "it was not requested"
    assert "Gamma net" in {row["Backbone"] for row in table(text, "<b>Published numbers</b>")}
    assert all(cell for row in rows.values() for cell in row.values())
    blocked = table(text, "### Blocked runs")
    assert [(row["Dataset"], row["Reason"]) for row in blocked] == [
        ("DukeMTMC-reID", "no data"),
        ("Market-1501", "no weights"),
    ]
    overview = {row["Backbone"]: row for row in table(text, "## Overview")}
    assert (overview["alpha"]["Market-1501"], overview["delta"]["DukeMTMC-reID"]) == ("oom", "blocked")
    assert overview["beta"]["DukeMTMC-reID"] == "not run"
    reasons = table(text, "### Failed runs")
    assert reasons[0]["Reason"] == "OutOfMemoryError: CUDA out of memory"


def test_settings_that_differ_are_not_pooled_and_say_how(tmp_path):
    wide = samples.ok(samples.spec(options={"stride": 12}), samples.evaluation(mAP=0.7))
    narrow = samples.ok(samples.spec(options={"stride": 16}), samples.evaluation(mAP=0.6))
    names = [row["Backbone"] for row in table(page(tmp_path, wide, narrow), "### Market")]
    assert names[:2] == ["alpha (stride=12)", "alpha (stride=16)"]


def test_protocols_never_share_a_table(tmp_path):
    text = page(tmp_path, samples.ok(samples.spec()), samples.ok(samples.spec(protocol="2.0")))
    assert "### Market-1501, protocol 1.0, recipe unified" in text
    assert "### Market-1501, protocol 2.0, recipe unified" in text


def test_cross_domain_scores_have_a_table_of_their_own(tmp_path):
    one = samples.ok(samples.spec(), samples.evaluation(mAP=0.6), samples.evaluation("dukemtmc", mAP=0.3))
    text = page(tmp_path, one)
    row = table(text, "### Market-1501 to DukeMTMC-reID (cross-domain), recipe unified")[0]
    assert row["mAP"] == "30.0" and "Published mAP / rank-1" not in row
    assert "*DukeMTMC-reID: Withdrawn by its authors.*" in text


def test_a_switched_off_camera_embedding_is_no_side_information(tmp_path):
    rows = table(page(tmp_path, samples.ok(samples.spec(options={"camera_embedding": False}))), "### Market")
    assert rows[0]["Side information"] == "none"


def test_a_row_of_runs_from_different_code_or_libraries_says_so(tmp_path):
    runs = [samples.ok(samples.spec(seed=seed)) for seed in range(3)]
    others = [samples.ok(samples.spec("beta", seed=seed)) for seed in range(2)]
    for run, commit, dirty, packages in zip(runs, "aab", (False, True, False), "112", strict=True):
        run["environment"] |= {"git_commit": commit * 40, "git_dirty": dirty, "packages_hash": packages * 16}
    others[0]["environment"] |= {"packages_hash": None}
    text = page(tmp_path, *runs, *others)
    a, b = "a" * 12, "b" * 12
    origin = f"commits `{a}`, `{a}+`, `{b}`; packages `{'1' * 12}`, `{'2' * 12}` (+: with uncommitted changes)."
    assert f"**alpha mixes runs of different origin**: {origin}" in text and text.count("different origin") == 1


def test_what_rows_do_not_share_is_said(tmp_path):
    one = samples.ok(samples.spec(), samples.evaluation(tied_queries=2))
    one["data"]["count_mismatch"] = ["train has 10 images, expected 12,936"]
    other = samples.ok(samples.spec("beta", fingerprint="b" * 64))
    text = page(tmp_path, one, other)
    assert "**Not all rows used the same files**: fingerprints `bbbbbbbb`, `ffffffff`." in text
    assert "- train has 10 images, expected 12,936" in text
    assert "- Queries with tied distances: alpha, plain: 2." in text


def test_bytes_do_not_depend_on_order_or_repetition(tmp_path):
    records = [*three_seeds(), *three_seeds("beta"), samples.failed(samples.spec("gamma"))]
    records[0]["environment"]["gpu"] = "Some GPU"
    shuffled = random.Random(1).sample(records, len(records))
    first = reporting.build(material(*records), tmp_path / "a" / "BENCHMARKS.md")
    second = reporting.build(material(*shuffled), tmp_path / "b" / "BENCHMARKS.md")
    assert [p.name for p in first] == [p.name for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert {p.suffix for p in first} == {".md", ".png"}


def test_time_stamps_and_places_are_not_on_the_page(tmp_path):
    one = samples.ok(samples.spec())
    later = {**one, "timing": {"started": "2031-01-01T00:00:00+00:00", "ended": None, "seconds": {"train": 9.0}}}
    later |= {"mlflow_run_id": "abc", "ray_trial_id": "def", "attempts": 3}
    assert page(tmp_path / "a", one) == page(tmp_path / "b", later)


def test_every_figure_is_linked_and_written(tmp_path):
    files = reporting.build(material(*three_seeds(), *three_seeds("beta")), tmp_path / "BENCHMARKS.md", figures="plots")
    linked = set(re.findall(r"\]\((plots/[^)]+\.png)\)", files[0].read_text()))
    assert linked == {p.relative_to(tmp_path).as_posix() for p in files[1:]}
    assert linked == {"plots/market1501.unified.cost.png", "plots/market1501.unified.cmc.png"}


def test_one_backbone_alone_has_no_figure(tmp_path):
    """There is nothing to compare."""
    (only,) = reporting.build(material(*three_seeds()), tmp_path / "BENCHMARKS.md", figures="plots")
    assert "![" not in only.read_text()


def keep(results: Path, *records: dict[str, Any]) -> None:
    for one in records:
        store.write(store.folder_of(results, one), one)


@pytest.mark.slow
def test_check_finds_what_is_stale(tmp_path):
    results, out = tmp_path / "results", tmp_path / "BENCHMARKS.md"
    keep(results, *three_seeds(), *three_seeds("beta"))
    assert reporting.check(results, out)[0] == str(out)
    files = reporting.write(results, out)
    assert reporting.check(results, out) == []
    files[1].write_bytes(files[1].read_bytes()[:-20])
    assert reporting.check(results, out) == [str(files[1])]
    reporting.write(results, out)
    keep(results, samples.ok(samples.spec(seed=3)))
    assert str(out) in reporting.check(results, out)
    reporting.write(results, out)
    out.write_text(out.read_text() + "by hand\n")
    assert reporting.check(results, out) == [str(out)]
    for path in results.rglob("record.json"):
        path.unlink()
    assert set(reporting.check(results, out)) == {str(out), *map(str, files[1:])}
    reporting.write(results, out)
    assert reporting.check(results, out) == [] and not any(path.exists() for path in files[1:])


def test_other_files_in_the_figures_folder_are_left_alone(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_bytes(b"x")
    reporting.build(material(*three_seeds(), *three_seeds("beta")), tmp_path / "BENCHMARKS.md")
    reporting.build(material(), tmp_path / "BENCHMARKS.md")
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["mine.png"]


def test_the_page_of_nothing_says_how_to_begin(tmp_path):
    text = page(tmp_path)
    assert "There are no results yet" in text and "python -m harness run" in text
    assert "<b>Published numbers</b>" not in text


def test_published_numbers_are_those_of_the_datasets_on_the_page(tmp_path):
    """Also of backbones that were not run, but only of datasets that were trained on."""
    text = page(tmp_path, samples.ok(samples.spec("beta"), samples.evaluation(), samples.evaluation("msmt17")))
    rows = table(text, "<b>Published numbers</b>")
    assert {(r["Backbone"], r["mAP"], r["rank-1"]) for r in rows} >= {
        ("Alpha net", "60.0", "75.5"),
        ("Gamma net", "50.0", "70.0"),
    }
    assert {r["Dataset"] for r in rows} == {"Market-1501"}
    assert "Alpha paper, Table 2. Set-up: input 256 × 128, stride 12." in text


def test_a_table_without_published_numbers_has_no_column_for_them(tmp_path):
    failed = samples.failed(samples.spec("alpha", dataset="dukemtmc"))
    text = page(tmp_path, samples.ok(samples.spec("beta", dataset="dukemtmc"), samples.evaluation("dukemtmc")), failed)
    assert {row["Backbone"] for row in table(text, "### DukeMTMC-reID")} == {"alpha", "beta"}
    assert "Published" not in text and "Reproduced minus" not in text
    text = page(tmp_path, samples.ok(samples.spec("beta")), samples.ok(samples.spec("alpha")))
    assert [row["Published mAP / rank-1"] for row in table(text, "### Market-1501")][1:] == ["–"]


def test_reproduce_command_names_what_was_run(tmp_path):
    """Those of one table; `test_report_commands.py` lets `plan` read them."""
    text = page(tmp_path, *three_seeds(), *three_seeds("beta"))
    command = "python -m harness run --backbones alpha,beta --datasets market1501 --seeds 0,1,2 --recipe unified"
    assert f"\n{command} --data-root DATA_ROOT --device cpu --set training.epochs=3 --from-scratch" in text
    text = page(tmp_path, samples.ok(samples.spec(pretrained="sha256:0")))
    assert "--weights-root WEIGHTS_ROOT" in text and "--from-scratch" not in text


def test_a_table_tells_what_was_read(tmp_path):
    run = samples.ok(samples.spec())
    train = {"images": 12936, "identities": 751, "cameras": 6}
    run["data"] |= {"layout": "MSMT17_V2", "splits": {"train": train}, "notes": {"junk": {"gallery": 3819}}}
    said = "Dataset layout `MSMT17_V2`; 12,936 training images of 751 identities; 3,819 junk images excluded"
    assert said in page(tmp_path, run)


def test_notes_of_the_data_stand_below_the_table_once(tmp_path):
    """Sentences as they are, other values by name; a note of some rows alone names them."""
    runs = [*three_seeds(), samples.ok(samples.spec("beta"), source="features")]
    for run in runs:
        run["data"]["notes"] = {"copy": "A copy resized to 64 x 128 | pixels.", "ignored_files": 2, "lists": {"val": 3}}
    runs[-1]["data"]["notes"] |= {"order_checked": False, "order": "The order could not be checked."}
    runs[0]["data"]["evaluated"] = {"msmt17": {"error": {"type": "DataError", "message": "No image is left."}}}
    text = page(tmp_path, *runs)
    for line in (
        "- Ignored files: 2.",
        "- Lists: val 3.",
        "- beta: Order checked: no.",
        "- beta: Scored file: `none`.",
        "- beta: The order could not be checked.",
        "- alpha: Not scored on msmt17: No image is left.",
    ):
        assert text.count(f"\n{line}\n") == 1, line
    assert text.index("\n\nA copy resized to 64 x 128 \\| pixels.\n") < text.index(
        "| alpha", text.index("## Results")
    ), "before the first number"
    assert text.count("A copy resized") == 1


def test_generated_data_say_how_they_were_made(tmp_path):
    run = samples.ok(samples.spec())
    run["data"]["generated"] = {"generated": True, "seed": 3, "size": [64, 32], "generator_version": 2}
    assert "- Generated data: generator version 2, seed 3, images of 64 × 32.\n" in page(tmp_path, run)


def test_a_cross_domain_table_tells_of_both_datasets(tmp_path):
    run = samples.ok(samples.spec(), samples.evaluation(), samples.evaluation("dukemtmc"))
    run["data"]["layout"] = "market"
    run["data"]["evaluated"] = {"dukemtmc": {"layout": "duke", "notes": {"cameras": "none"}}}
    text = page(tmp_path, run)
    (cross,) = re.findall(r"^- \*\*Market-1501 to DukeMTMC-reID\*\*: (.*)$", text, re.M)
    assert cross == "Layout of the scored dataset: `duke`. Cameras: none." and text.count("Cameras: none.") == 1


def test_an_untrained_start_is_not_called_trained(tmp_path):
    def start(**changes):
        values = {**samples.VALUES, "training": {"epochs": 0}}
        return samples.spec(values=values, **changes)

    rows = [
        samples.ok(start(pretrained="sha256:0"), samples.evaluation(trained=False)),
        samples.ok(start(), samples.evaluation()),
        *three_seeds(),
    ]
    found = {row["Backbone"]: row for row in table(page(tmp_path, *rows), "### Market-1501")}
    names = [name for name in found if name.startswith("alpha")]
    assert len(names) == 3 and sum("not trained" in name for name in names) == 2
    (said,) = re.findall(r"^- (alpha \(not trained.*\)): pretrained start, not trained$", page(tmp_path, *rows), re.M)
    assert found[said]["Published mAP / rank-1"] == "–"
    assert sum("training.epochs" in name for name in names) == 0


def test_a_table_says_what_its_recipe_is_for(tmp_path):
    text = page(tmp_path, samples.ok(samples.spec(recipe="smoke")))
    assert "\n**Recipe smoke**. Two short epochs, to check that everything works.\n" in text
    text = page(tmp_path, *(samples.ok(samples.spec(name, recipe="native")) for name in ("bot", "reidmamba")))
    assert re.search(r"^- Recipe of bot: Strong baseline \(CVPRW 2019\)", text, re.M), "below Data and set-up"
    assert re.search(r"^- Recipe of reidmamba: ", text, re.M)


def test_unreadable_records_are_on_the_page_without_the_place(tmp_path):
    results = tmp_path / "results"
    keep(results, *three_seeds())
    path = next(results.rglob("record.json"))
    path.write_text("{")
    text = reporting.build(gather(results), tmp_path / "BENCHMARKS.md")[0].read_text()
    assert path.relative_to(results).as_posix() in text and str(tmp_path) not in text


@pytest.mark.slow
def test_what_a_killed_driver_left_beside_the_page_is_swept(tmp_path):
    code = "import os, sys; from pathlib import Path; from harness import reporting as report\n"
    code += "os.replace = lambda *_: os._exit(9)\nreport._put(Path(sys.argv[1]), b'x')"
    for path in (tmp_path / "BENCHMARKS.md", tmp_path / "figures" / "a.png"):
        assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=REPOSITORY).returncode == 9
    assert len(list(tmp_path.rglob("*.tmp"))) == 2, "under a name that is looked for"
    page(tmp_path, *three_seeds())
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_unwritable_place_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="--out"):
        reporting.build(material(), tmp_path / "file" / "BENCHMARKS.md")


def test_search_and_profile_runs_stay_out_of_the_result_tables(tmp_path):
    search = samples.ok(samples.spec(purpose="search"), samples.evaluation(mAP=0.9), source="search")
    profiles = []
    for height in (256, 384):
        one = samples.ok(samples.spec(values={"height": height}), source="profile", image_size=[height, 128])
        profiles.append({**one, "evaluations": []})
    text = page(tmp_path, *three_seeds(), search, *profiles)
    assert table(text, "### Market")[0]["mAP"] == "61.0 ± 3.6"
    assert table(text, "## Overview")[0]["Market-1501"] == "61.0 ± 3.6 / 71.0 ± 3.6"
    assert [row["Size"] for row in table(text, "## Efficiency study")] == ["256 × 128", "384 × 128"]
    assert [row["Size"] for row in table(text, "<b>All cells</b>")] == ["256 × 128", "384 × 128"]
    assert "Memory against resolution" in text and "accuracy against throughput" in text


def test_pictures_are_linked_where_results_lie_below_the_page(tmp_path):
    one = {**samples.ok(samples.spec()), "pictures": ["pictures/ranked lists.png", "../../secret.png"]}
    keep(tmp_path / "results", one)
    text = reporting.write(tmp_path / "results", tmp_path / "BENCHMARKS.md")[0].read_text()
    assert f"(<results/market1501/alpha/{one['run_id'][:12]}/pictures/ranked%20lists.png>)" in text
    elsewhere = reporting.write(tmp_path / "results", tmp_path / "docs" / "BENCHMARKS.md")[0].read_text()
    assert f"50.0 / 60.0 `{one['run_id'][:12]}`" in elsewhere and "ranked" not in elsewhere.split("| alpha")[-1]
    assert "secret" not in text + elsewhere


def test_a_figure_shows_no_more_settings_than_can_be_told_apart(tmp_path):
    records = [samples.ok(samples.spec(f"net{i:02}"), samples.evaluation(mAP=0.3 + i / 100)) for i in range(26)]
    text = page(tmp_path, *records)
    assert "The figures show the 12 configurations with the highest mAP, of 26." in text
    assert len([row for row in table(text, "### Market") if row["Backbone"].startswith("net")]) == 26


def test_ranked_lists_are_linked_of_generated_people_only(tmp_path):
    """Git ignores ranked lists, which show people; a link to them would be broken in every other checkout."""
    pictures = {"pictures": ["pictures/ranked_lists.png", "pictures/distances.png"]}
    keep(tmp_path / "real" / "results", {**samples.ok(samples.spec()), **pictures})
    text = reporting.write(tmp_path / "real" / "results", tmp_path / "real" / "BENCHMARKS.md")[0].read_text()
    assert "pictures/distances.png>)" in text and "pictures/ranked_lists.png" not in text
    drawn = samples.ok(samples.spec())
    drawn = {**drawn, **pictures, "data": {**drawn["data"], "generated": {"seed": 0}}}
    keep(tmp_path / "drawn" / "results", drawn)
    text = reporting.write(tmp_path / "drawn" / "results", tmp_path / "drawn" / "BENCHMARKS.md")[0].read_text()
    assert "pictures/ranked_lists.png>)" in text


def test_generalisation_is_a_matrix_of_training_sets_and_test_sets(tmp_path: Path) -> None:
    def trained(dataset: str, *scores: tuple[str, float]) -> dict[str, Any]:
        spec = samples.spec("alpha", dataset, evaluate_on=tuple((name, "f" * 64) for name, _ in scores[1:]))
        return samples.ok(spec, *(samples.evaluation(name, mAP=value) for name, value in scores))

    joined = "market1501+dukemtmc"
    records = [
        trained("market1501", ("market1501", 0.8), ("dukemtmc", 0.3)),
        trained("dukemtmc", ("dukemtmc", 0.7), ("market1501", 0.2)),
        trained(joined, (joined, 0.6), ("dukemtmc", 0.5)),
    ]
    rows = table(page(tmp_path, *records), "### Generalisation: alpha")
    found = {row["Trained on"]: (row["Market-1501"], row["DukeMTMC-reID"]) for row in rows}
    assert found == {
        "DukeMTMC-reID": ("20.0", "70.0"),
        "Market-1501": ("80.0", "30.0"),
        "Market-1501 + DukeMTMC-reID": ("60.0", "50.0"),
    }
    text = page(tmp_path, *records)
    assert "Market-1501 + DukeMTMC-reID to DukeMTMC-reID (trained on)" in text
    assert "Market-1501 to DukeMTMC-reID (cross-domain)" in text
    assert "## Generalisation" not in page(tmp_path, *records[:1])


def test_eighteen_runs_fit_on_two_hundred_lines(tmp_path: Path) -> None:
    """As many as the demo has, with its tests; the lines are those of the source."""
    records = []
    for dataset in ("market1501", "dukemtmc", "msmt17", "cuhk03-detected", "cuhk03-labeled", "occluded-duke"):
        for backbone in ("alpha", "beta", "gamma"):
            rows = [samples.evaluation(dataset, **more) for more in ({}, {"flip": True}, {"trained": False})]
            record = samples.ok(samples.spec(backbone, dataset), *rows)
            record["data"]["generated"] = {"seed": 0}
            records.append(record)
    text = page(tmp_path, *records)
    assert text.count("\n") <= 200
    assert [len(table(text, heading)) for heading in ("## Overview", "### Market-1501", "<b>Single runs</b>")] == [
        3,
        3,
        3,
    ]


def test_labels_name_what_matters_and_not_which_further_tests_were_made() -> None:
    def run(seed: int = 0, **changes: Any) -> dict[str, Any]:
        values = {"training": {"epochs": 15}, "evaluation": {"rerank": True, "untrained": True}}
        for table, keys in changes.pop("values", {}).items():
            values[table] = {**values[table], **keys}
        return samples.ok(samples.spec("beta", seed=seed, values=values, **changes), samples.evaluation())

    def labels(*records: dict[str, Any]) -> list[str]:
        (table,) = rows.tables(ReportData(list(records)))
        return sorted(row.label for row in table.rows)

    quick = {"training": {"epochs": 4}, "evaluation": {"rerank": False, "untrained": False}}
    assert labels(run(), run(values=quick, source="c0de")) == [
        "beta (training.epochs=15, code=" + run()["spec"]["source"] + ")",
        "beta (training.epochs=4, code=c0de)",
    ]
    fewer = {"evaluation": {"rerank": False}}
    assert labels(run(), run(values=fewer)) == ["beta (evaluation.rerank=false)", "beta (evaluation.rerank=true)"]
