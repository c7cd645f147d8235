"""`compare`: which two runs are taken, and that nothing is chosen silently."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import stats
from harness.records import store
from tests.support import record_samples as samples

Cli = Callable[..., tuple[int, str, str]]
GOOD, BAD = [0.7, 0.6, 0.5, 0.7] * 5, [0.3, 0.2, 0.4, 0.1] * 5


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., str]:
    """Writes a finished run with its per-query values; returns its id."""

    def write(backbone: str, values: list[float], source: str = "trained", **spec: Any) -> str:
        row = samples.evaluation(mAP=sum(values) / len(values), per_query="per_query.csv")
        record = samples.ok(samples.spec(backbone, **spec), row, source=source)
        store.write(store.folder_of(tmp_path, record), record, {"per_query.csv": samples.per_query(values)})
        return record["run_id"]

    return write


def compared(cli: Cli, results: Path, *more: object) -> tuple[int, list[str], str]:
    words = ["compare", "alpha", "beta", "--dataset", "market1501", "--results", results, "--format", "json", *more]
    code, out, err = cli(*words)
    return code, json.loads(out)["runs"] if code == 0 else [], err


def test_trained_runs_are_compared_and_trials_of_a_search_never(
    cli: Cli, tmp_path: Path, keep: Callable[..., str]
) -> None:
    trained, other = keep("alpha", GOOD), keep("beta", BAD)
    trial = {"purpose": "search", "holdout": {"seed": 0, "share": 0.3}}
    keep("alpha", BAD, "search", **trial)
    published = keep("alpha", BAD, "published-checkpoint", purpose="checkpoint")
    keep("beta", GOOD, "published-checkpoint", purpose="checkpoint")
    assert compared(cli, tmp_path) == (0, [trained, other], "")
    code, _, err = compared(cli, tmp_path, "--source", "features")
    assert code == 2 and "No finished run of alpha" in err
    assert compared(cli, tmp_path, "--source", "published-checkpoint")[1][0] == published
    assert compared(cli, tmp_path, "--run", published[:12], "--run", other)[1] == [published, other]


@pytest.mark.parametrize(("value", "shown"), [(9.999e-05, "p < 0.0001, by"), (0.0001, "p = 0.0001, by")])
def test_a_p_value_has_the_form_of_the_report(
    cli: Cli, tmp_path: Path, keep: Callable[..., str], monkeypatch: pytest.MonkeyPatch, value: float, shown: str
) -> None:
    keep("alpha", GOOD)
    keep("beta", BAD)
    test = stats.paired_test

    def with_p_value(*given: Any) -> stats.PairedTest:
        return dataclasses.replace(test(*given), p_value=value)

    monkeypatch.setattr(stats, "paired_test", with_p_value)
    code, out, _ = cli("compare", "alpha", "beta", "--dataset", "market1501", "--results", tmp_path)
    assert code == 0 and shown in out


@pytest.mark.parametrize(
    ("change", "words"),
    [({"protocol": "0.9"}, "protocol 0.9"), ({"fingerprint": "e" * 64}, "fingerprints are not equal")],
)
def test_runs_of_other_data_or_protocol_are_refused(
    cli: Cli, tmp_path: Path, keep: Callable[..., str], change: dict[str, str], words: str
) -> None:
    keep("alpha", GOOD, **change)
    keep("beta", BAD)
    code, _, err = compared(cli, tmp_path)
    assert code == 2 and words in err and "Repeat" in err


def test_two_runs_that_fit_are_refused_by_name(cli: Cli, tmp_path: Path, keep: Callable[..., str]) -> None:
    other = keep("beta", BAD)
    both = [keep("alpha", GOOD, options={"width": width}) for width in ("tiny", "small")]
    code, _, err = compared(cli, tmp_path)
    assert code == 2 and all(run[:12] in err for run in both) and "--run ID" in err and err.count("\n") == 1
    for run in both:
        assert compared(cli, tmp_path, "--run", run[:8]) == (0, [run, other], "")
    code, _, err = compared(cli, tmp_path, "--run", "nobody")
    assert code == 2 and "--run nobody: no finished run" in err


def test_of_several_recipes_one_must_be_named(cli: Cli, tmp_path: Path, keep: Callable[..., str]) -> None:
    runs = {name: [keep("alpha", GOOD, recipe=name), keep("beta", BAD, recipe=name)] for name in ("native", "unified")}
    code, _, err = compared(cli, tmp_path)
    assert code == 2 and "choose one of native, unified with --recipe" in err
    for name, pair in runs.items():
        assert compared(cli, tmp_path, "--recipe", name) == (0, pair, "")


def test_records_of_own_data_need_no_plug_in(cli: Cli, tmp_path: Path, keep: Callable[..., str]) -> None:
    """Its card is at hand where it is trained, not where results are read."""
    both = [keep("alpha", GOOD, dataset="our-office"), keep("beta", BAD, dataset="our-office")]
    words = ["compare", "alpha", "beta", "--results", tmp_path, "--format", "json", "--dataset"]
    for name in ("our-office", "our_office"):
        code, out, err = cli(*words, name)
        assert code == 0 and json.loads(out)["runs"] == both, err
    code, _, err = cli(*words, "their-office")
    assert code == 2 and "Unknown dataset 'their-office'" in err
    assert "our-office" in cli("status", "--results", tmp_path)[1]
    assert cli("report", "--results", tmp_path)[0] == 0
    assert "our-office" in (tmp_path / "BENCHMARKS.md").read_text()


def test_the_card_of_a_plug_in_reaches_the_page(cli: Cli, tmp_path: Path) -> None:
    record = samples.ok(samples.spec(dataset="our-office"), samples.evaluation("our-office"))
    store.write(store.folder_of(tmp_path, record), record)
    card = tmp_path / "plugins" / "our_office" / "card.toml"
    card.parent.mkdir(parents=True)
    layout = '[[layouts]]\nname = "office"\nreader = "csv"\nfolders = ["office"]\n'
    card.write_text(f'kind = "dataset"\nname = "our-office"\ntitle = "Our office by day"\n{layout}')
    words = ["report", "--results", tmp_path, "--plugins", tmp_path / "plugins"]
    assert cli(*words)[0] == 0 and cli(*words, "--check")[0] == 0
    assert "Our office by day" in (tmp_path / "BENCHMARKS.md").read_text()
    assert cli("report", "--results", tmp_path, "--check")[0] == 1
