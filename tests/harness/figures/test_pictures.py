"""Pictures of a run: the right queries, frames that tell right from wrong, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.errors import UsageError
from harness.figures import pictures, style

NAN = float("nan")


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def count(path: Path, colour: str) -> int:
    return int((np.asarray(Image.open(path).convert("RGB")) == rgb(colour)).all(axis=2).sum())


def person(folder: Path, name: str, grey: int) -> Path:
    path = folder / name
    Image.new("RGB", (64, 128), (grey, grey, grey)).save(path)
    return path


def queries(folder: Path, right: int = 3, wrong: int = 2) -> list[dict]:
    image = person(folder, "a.png", 120)
    found = [{"path": image, "pid": 1 if i < right else 2, "camid": i % 3} for i in range(right + wrong)]
    return [{"path": image, "pid": 1, "camid": 0, "ap": 0.5, "kind": "median", "results": found}]


def test_worst_median_and_best_queries_are_chosen():
    values = [0.9, NAN, 0.1, 0.5, 0.2, 0.6, 1.0, 0.55]
    chosen = pictures.choose_queries(values, each=2)
    assert chosen == [("worst", 2), ("worst", 4), ("median", 3), ("median", 7), ("best", 0), ("best", 6)]


def test_few_queries_are_chosen_once():
    assert pictures.choose_queries([NAN, NAN]) == []
    assert pictures.choose_queries([0.4]) == [("worst", 0)]
    assert [i for _, i in pictures.choose_queries([0.4, 0.2, 0.3, NAN])] == [1, 2, 0]


@given(st.lists(st.floats(0, 1) | st.just(NAN), max_size=40), st.integers(1, 5))
def test_no_query_is_chosen_twice_and_kinds_are_ordered(values, each):
    chosen = pictures.choose_queries(values, each)
    indices = [i for _, i in chosen]
    assert len(set(indices)) == len(indices)
    scores = [values[i] for i in indices]
    assert scores == sorted(scores)
    kinds = [kind for kind, _ in chosen]
    if sum(v == v for v in values) >= 3:
        assert {kinds.count(k) for k in ("worst", "median", "best")} == {min(each, sum(v == v for v in values) // 3)}


def test_frames_count_right_and_wrong(tmp_path):
    legend = pictures.ranked_sheet(queries(tmp_path, 1, 1), tmp_path / "small.png")
    sheet = pictures.ranked_sheet(queries(tmp_path, 4, 1), tmp_path / "sheet.png")
    frame = count(legend, style.DIFFERENT)
    assert count(sheet, style.DIFFERENT) == frame
    assert count(sheet, style.SAME) > 2 * count(legend, style.SAME)


def test_a_sheet_is_the_same_each_time(tmp_path):
    one = pictures.ranked_sheet(queries(tmp_path), tmp_path / "x" / "1.png", title="alpha")
    two = pictures.ranked_sheet(queries(tmp_path), tmp_path / "2.png", title="alpha")
    other = pictures.ranked_sheet(queries(tmp_path), tmp_path / "3.png", title="beta")
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_images_that_cannot_be_opened_are_grey_tiles(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    lists = queries(tmp_path)
    lists[0]["results"][0]["path"] = tmp_path / "broken.jpg"
    lists[0]["results"][1]["path"] = tmp_path / "absent.jpg"
    whole = pictures.ranked_sheet(queries(tmp_path), tmp_path / "whole.png")
    sheet = pictures.ranked_sheet(lists, tmp_path / "sheet.png")
    tile = pictures.TILE[0] * pictures.TILE[1]
    assert 1.5 * tile < count(sheet, pictures.GREY) - count(whole, pictures.GREY) < 2 * tile


def test_images_come_from_the_given_loader(tmp_path):
    lists = queries(tmp_path)
    sheet = pictures.ranked_sheet(lists, tmp_path / "a.png", load=lambda path: Image.new("L", (10, 20), 200))
    tiles = 6 * pictures.TILE[0] * pictures.TILE[1] - 5 * 16 * 16  # aspect 1:2 fills a tile, but for its mark
    assert count(sheet, "#c8c8c8") == pytest.approx(tiles, abs=50)  # some text pixels have this grey, too


def test_images_are_not_stretched(tmp_path):
    sheet = pictures.ranked_sheet(
        queries(tmp_path, 1, 0), tmp_path / "a.png", load=lambda path: Image.new("RGB", (50, 50), (1, 2, 3))
    )
    assert count(sheet, "#010203") == pytest.approx(2 * pictures.TILE[0] ** 2, abs=2 * 16 * 16)


def test_lists_of_different_length_fit_on_one_sheet(tmp_path):
    lists = queries(tmp_path, 5, 5) + queries(tmp_path, 1, 0) + [{**queries(tmp_path)[0], "results": []}]
    assert Image.open(pictures.ranked_sheet(lists, tmp_path / "a.png")).size[1] > 3 * pictures.TILE[1]


def test_histogram_is_the_same_each_time_and_follows_the_counts(tmp_path):
    edges = np.linspace(0, 2, 21)
    same, different = np.zeros(20, int), np.zeros(20, int)
    same[3:8], different[8:14] = 10, 1000
    first = pictures.distance_histogram(edges, same, different, tmp_path / "a.png")
    again = pictures.distance_histogram(list(edges), list(same), list(different), tmp_path / "b.png")
    assert first.read_bytes() == again.read_bytes()
    same[10] = 5
    assert pictures.distance_histogram(edges, same, different, tmp_path / "c.png").read_bytes() != first.read_bytes()
    assert count(first, style.SAME) > 100 and count(first, style.DIFFERENT) > 100


def test_an_empty_histogram_is_drawn(tmp_path):
    assert pictures.distance_histogram([0, 1, 2], [0, 0], [0, 0], tmp_path / "a.png").exists()


def test_nothing_to_draw_is_one_clear_sentence(tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        pictures.ranked_sheet([], tmp_path / "a.png")
    with pytest.raises(UsageError, match="3 edges needs 2 counts per kind of pair; found 1 and 2"):
        pictures.distance_histogram([0, 1, 2], [1], [1, 2], tmp_path / "a.png")
