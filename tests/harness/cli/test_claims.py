"""`claims`: the verdicts as text and JSON, the schema of claims on cards, and the section of the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness import reporting
from harness.cards import read_card
from harness.errors import UsageError
from harness.reporting.claims import RULES
from harness.system.paths import REPOSITORY
from tests.harness.reporting.claims.conftest import CARD, CLAIMS, Lab

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A results folder with a number below, one that is not comparable, and a claim that is supported."""
    lab = Lab(tmp_path)
    for mAP in (78.9, 79.0, 79.1):
        lab.run(mAP)
    lab.run(82.0, backbone="ours:stride12", evaluation={"flip": True}, data={"generated": {"seed": 0}})
    lab.cell("ours", parameters=8_900_000)
    lab.cell("bot", parameters=25_000_000)
    return lab


def call(cli: Cli, lab: Lab, *more: str) -> tuple[int, str, str]:
    return cli("claims", "--results", lab.results, "--plugins", lab.plugins, *more)


def test_a_table_with_verdicts_reasons_and_the_rule(cli: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = call(cli, lab)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if line.startswith("market1501  ours ") and " 80 " in line)
    assert row.split() == [
        "market1501",
        "ours",
        "plain",
        "80",
        "79.0",
        "±",
        "0.1",
        "3",
        "78.5",
        "to",
        "79.5",
        "78.0",
        "to",
        "80.0",
        "below",
    ]
    assert "images generated instead of original" in out
    assert "parameters below 0.36 times bot" in out and "supported" in out
    words = " ".join(out.replace("\n- ", "\n").split())
    assert all(sentence in words for rule in RULES.values() for sentence in rule)
    assert "Table 3" not in out and "not run" in out  # counted only


def test_details_show_every_number_with_its_source(cli: Cli, lab: Lab) -> None:
    code, out, _ = call(cli, lab, "--details")
    assert code == 0
    for words in ("source: Table 3", "set-up: as in the paper", "rank-1: 90 published; 89.0 ± 0.1 ours; -1.0 points"):
        assert words in out
    assert "bot, 256 × 128: ratio 0.36, holds" in out


def test_json_is_that_of_the_python_api(cli: Cli, lab: Lab) -> None:
    code, out, _ = call(cli, lab, "--format", "json")
    expected = json.loads(json.dumps(harness.claims(lab.results, plugins=lab.plugins).to_dict()))
    assert code == 0 and json.loads(out) == expected


def test_wrong_usage_has_code_2(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("claims", "--results", tmp_path / "nowhere")
    assert code == 2 and "does not exist. Pass the folder of the records with --results." in err
    assert cli("claims", "--format", "xml")[0] == 2


def test_damaged_records_are_warnings(cli: Cli, lab: Lab) -> None:
    next(lab.results.glob("*/*/*/record.json")).write_text("{")
    code, _, err = call(cli, lab)
    assert code == 0 and err.startswith("Warning: ") and "damaged or truncated" in err


def test_the_report_has_a_section_where_a_run_is_about_a_number(lab: Lab, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    reporting.write(lab.results, page, lab.plugins)
    section = page.read_text().partition("## Claims")[2].partition("\n## ")[0]
    assert "| below" in section and "images generated" not in section
    assert "parameters below 0.36 times bot" in section and "0.36 (bot, 256 × 128)" in section
    assert all(sentence in section for rule in RULES.values() for sentence in rule)
    (tmp_path / "empty").mkdir()
    reporting.write(tmp_path / "empty", page)
    assert "## Claims" not in page.read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('metric = "parameter"', "Did you mean 'parameters'?"),
        ('relation = "over"', "claims[0].relation must be 'below' or 'above', found 'over'."),
        ("factor = 0", "claims[0].factor must be a number above 0, found 0."),
        ('comparater = "bot"', "Unknown key in"),
        ('variant = "stride21"', "Unknown variant in"),
        ('metric = "mAP"', "a claim about mAP needs datasets. List their names `datasets`."),
        ('datasets = ["market1501"]', "a claim about parameters takes no datasets. Remove the key `datasets`."),
        ('comparator = "ours"', "the comparator is the backbone itself. Name another one, or `all`."),
    ],
)
def test_a_wrong_claim_is_refused_in_one_sentence(tmp_path: Path, wrong: str, message: str) -> None:
    keys = {"metric": '"parameters"', "relation": '"below"', "comparator": '"bot"', "source": '"abstract"'}
    key, _, value = wrong.partition(" = ")
    keys[key] = value
    claim = "\n".join(f"{name} = {value}" for name, value in keys.items())
    path = tmp_path / "ours" / "card.toml"
    path.parent.mkdir()
    path.write_text(f"{CARD}\n[[claims]]\n{claim}\n")
    with pytest.raises(UsageError) as error:
        read_card(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_valid_claims_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ours" / "card.toml"
    path.parent.mkdir()
    path.write_text(CARD + CLAIMS)
    card = read_card(path)
    assert [c.metric for c in card.claims] == ["parameters", "memory", "speed", "mAP"]  # type: ignore[union-attr]


def test_our_own_results_support_no_number_yet() -> None:
    """The committed runs are of small networks on resized images, so nothing may be called reproduced."""
    found = harness.claims(REPOSITORY / "results")
    assert {r.verdict for r in found.published} <= {"not comparable", "not run"}
