"""Planning is pure, quick, and says why something cannot run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.planning import plan
from harness.planning.request import Request, parse_seeds
from harness.records import store
from harness.spec.job import LocalPaths

Cli = Callable[..., tuple[int, str, str]]


def request_on(world: Path, results: Path, **changes: object) -> Request:
    values = {"backbones": "bot,dummy", "datasets": "market1501", "recipe": "smoke", "from_scratch": True}
    return Request(**{**values, "results": results, "paths": LocalPaths(data_root=str(world)), **changes})  # type: ignore[arg-type]


def test_the_same_request_gives_the_same_ids_in_any_order(world: Path, tmp_path: Path) -> None:
    first = {c.spec.run_id for c in plan.build(request_on(world, tmp_path))}
    second = {c.spec.run_id for c in plan.build(request_on(world, tmp_path, backbones="dummy,bot"))}
    assert first == second and len(first) == 2


def test_moving_the_data_root_keeps_the_ids(world: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere_c4"
    elsewhere.symlink_to(world)
    ids = [[c.spec.run_id for c in plan.build(request_on(root, tmp_path))] for root in (world, elsewhere)]
    assert ids[0] == ids[1]


def test_missing_data_is_blocked_with_where_and_whom_to_ask(tmp_path: Path) -> None:
    cells = plan.build(request_on(tmp_path, tmp_path, datasets="market1501,dukemtmc"))
    assert {c.state for c in cells} == {"blocked"}
    assert str(tmp_path) in cells[0].reason and "Market-1501-v15.09.15" in cells[0].reason


def test_missing_weights_are_blocked_unless_from_scratch(world: Path, tmp_path: Path) -> None:
    (cell,) = plan.build(request_on(world, tmp_path, backbones="bot", from_scratch=False))
    assert cell.state == "blocked" and "--weights-root" in cell.reason and "--from-scratch" in cell.reason


def test_only_an_ok_record_is_cached(world: Path, tmp_path: Path) -> None:
    from harness.records import schema as records

    (cell,) = plan.build(request_on(world, tmp_path, backbones="dummy"))
    assert (cell.state, cell.reason) == ("to do", "new")
    record = records.new(cell.spec)
    store.write(cell.folder, record)
    (cell,) = plan.build(request_on(world, tmp_path, backbones="dummy"))
    assert (cell.state, cell.reason) == ("to do", "interrupted before")


def test_plan_prints_json_and_text(cli: Cli, world: Path, tmp_path: Path) -> None:
    arguments = ["--backbones", "bot", "--datasets", "cuhk03", "--recipe", "smoke", "--from-scratch"]
    arguments += ["--data-root", str(world), "--results", str(tmp_path)]
    code, out, _ = cli("plan", *arguments, "--format", "json")
    cells = json.loads(out)
    assert code == 0 and [c["dataset"] for c in cells] == ["cuhk03-detected", "cuhk03-labeled"]
    assert set(cells[0]) == {"run_id", "backbone", "dataset", "recipe", "seed", "state", "reason", "short_reason"}
    code, out, _ = cli("plan", *arguments)
    assert "2 runs on cpu: 2 to do." in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbones": "resnet"}, "Unknown backbone 'resnet'"),
        ({"datasets": "markt1501"}, "Did you mean .market1501"),
        ({"recipe": "unifed"}, "Did you mean 'unified'"),
        ({"overrides": {"optimizer.lr": -1.0}}, "must be a number above 0, found -1.0"),
        ({"overrides": {"optimizer.rate": 1.0}}, "Unknown key"),
        ({"overrides": {"loss.branches": "sum"}}, "loss.branches must be .mean. or .first-half., found .sum."),
        ({"options": {"": {"strid": 3}}}, "Unknown backbone option"),
        ({"device": "tpu"}, "Unknown device"),
    ],
)
def test_wrong_words_are_refused_with_a_sentence(
    world: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan.build(request_on(world, tmp_path, **change))


def test_seeds() -> None:
    assert parse_seeds("0,1,1,2") == (0, 1, 2)
    with pytest.raises(UsageError, match="whole numbers"):
        parse_seeds("0,a")


def test_leave_one_out_trains_on_the_others_and_scores_what_was_left_out(tmp_path: Path) -> None:
    names = "market1501,dukemtmc,occluded-duke,cuhk03-detected"
    cells = plan.build(request_on(tmp_path, tmp_path, backbones="dummy", datasets=names, protocol="leave-one-out"))
    assert [(cell.spec.dataset, [name for name, _ in cell.spec.evaluate_on]) for cell in cells] == [
        ("dukemtmc+cuhk03-detected", ["market1501"]),
        ("market1501+cuhk03-detected", ["dukemtmc"]),
        ("market1501+cuhk03-detected", ["occluded-duke"]),
        ("market1501+dukemtmc", ["cuhk03-detected"]),
    ]
    with pytest.raises(UsageError, match="at least 3 groups of people"):
        plan.build(
            request_on(tmp_path, tmp_path, datasets="market1501,dukemtmc,occluded-duke", protocol="leave-one-out")
        )


def test_reader_options_of_joined_datasets_are_refused(tmp_path: Path) -> None:
    for name in ("dukemtmc", "market1501+dukemtmc"):
        given = {"datasets": "market1501+dukemtmc", "dataset_options": {name: {"version": "v2"}}}
        with pytest.raises(UsageError, match=f"--data-option {re.escape(name)} cannot"):
            plan.build(request_on(tmp_path, tmp_path, **given))


def test_the_protocol_each_gives_the_ids_of_before(world: Path, tmp_path: Path) -> None:
    plain, named = (plan.build(request_on(world, tmp_path, **more)) for more in ({}, {"protocol": "each"}))
    assert [cell.spec.run_id for cell in plain] == [cell.spec.run_id for cell in named]
