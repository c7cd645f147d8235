"""Figures: labels apart, bytes that follow from the values."""

from __future__ import annotations

import io
import itertools

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.figures import style
from harness.reporting import plots

NAMES = ("alpha", "beta", "gamma$x$", "timm:a_very_long_model_name_that_goes_on.and_on_in21k")
LOOKS = style.looks(NAMES)


def cmc(shift: float = 0.0) -> bytes:
    curves = [(name, name, [0.5 + shift + 0.1 * i, 0.9, 0.95]) for i, name in enumerate(NAMES)]
    return plots.cmc("Title", curves, LOOKS)


@given(
    wanted=st.lists(st.floats(-5, 15), max_size=12),
    gap=st.floats(0.01, 3),
)
@settings(deadline=None)
def test_labels_are_separated_within_range_and_keep_their_order(wanted, gap):
    placed = style.separate(wanted, gap, 0.0, 10.0)
    assert len(placed) == len(wanted)
    assert all(-1e-9 <= p <= 10 + 1e-9 for p in placed)
    least = min(gap, 10 / max(1, len(wanted) - 1))
    ordered = sorted(placed)
    assert all(b - a >= least - 1e-6 for a, b in itertools.pairwise(ordered))
    for i, a in enumerate(wanted):
        for j, b in enumerate(wanted):
            assert not (a < b and placed[i] > placed[j])


def test_labels_that_are_apart_stay():
    assert style.separate([1.0, 5.0, 9.0], 1.0, 0.0, 10.0) == [1.0, 5.0, 9.0]
    assert style.separate([5.0, 5.0], 1.0, 0.0, 10.0) == pytest.approx([4.5, 5.5])


def test_point_labels_do_not_cover_one_another():
    made, (axes,) = style.figure(6, 4, "Title")
    points = [(1 + 0.01 * i, 1 + 0.01 * i, f"backbone {i}", "#000000") for i in range(8)]
    axes.set_xlim(0, 3)
    axes.set_ylim(0, 3)
    style.label_points(axes, points)
    renderer = made.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer).extents for t in axes.texts if t.get_text()]
    assert len(boxes) == 8
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) + 1 or min(a[3], b[3]) <= max(a[1], b[1]) + 1


def test_same_values_give_the_same_bytes():
    first = cmc()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.dpi": 20}):
        assert cmc() == first
    assert cmc(0.01) != first


def test_picture_of_other_libraries_is_compared_by_values(monkeypatch):
    here, other_values = cmc(), cmc(0.01)
    monkeypatch.setattr(matplotlib, "__version__", "1.0")
    elsewhere = cmc()
    assert elsewhere != here and style.same_picture(here, elsewhere)
    assert not style.same_picture(here, other_values)
    assert not style.same_picture(elsewhere, other_values)
    assert not style.same_picture(elsewhere, here[:-30])
    assert not style.same_picture(here, b"")


def test_every_backbone_of_a_report_looks_different():
    looks = style.looks(f"net{i}" for i in range(40))
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 40
    assert style.looks(["b", "a"]) == style.looks(["a", "b", "b"])


def test_known_backbones_look_the_same_in_every_report():
    one, other = style.looks(["reidmamba", "bot", "a"]), style.looks(["reidmamba", "bot", "transreid", "b"])
    assert one["reidmamba"] == other["reidmamba"] and one["bot"] == other["bot"]
    assert one["a"] == other["b"], "the first look after the fixed ones"
    assert len({str(look) for look in other.values()}) == 4


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_names_at_the_right_are_inside_the_picture():
    edge = pixels(cmc())[:, -3:]
    assert (edge == 255).all()


def test_colours_of_all_curves_are_in_the_picture():
    picture = pixels(cmc()).reshape(-1, 3)
    for look in LOOKS.values():
        rgb = [int(look["color"][i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - rgb).sum(axis=1) < 6).sum() > 30


@pytest.mark.parametrize("points", [1, 3])
def test_cost_plots_bear_few_and_equal_points(points):
    at = [plots.Point(NAMES[i], NAMES[i], 25.0, 80.0, 0.0) for i in range(points)]
    assert pixels(plots.cost("Title", [("parameters (M)", False, at)], LOOKS)).shape[2] == 3


def test_lines_bear_one_series():
    assert pixels(plots.lines("Title", "x", "y", {"alpha": [(1.0, 2.0), (2.0, 2.0)]})).shape[2] == 3


def test_a_long_title_is_wrapped_and_inside_the_figure():
    text = "CUHK03-NP (detected): 4 trials of 4 epochs in the space training, recipe small: best of n trials"
    with style.style():
        _, (panel,) = style.figure(6.3, 4.0, "short")
        made, (axes,) = style.figure(6.3, 4.0, text)
        made.canvas.draw()
        (title,) = made.texts
        assert title.get_text().replace("\n", " ") == text
        assert title.get_window_extent().x1 <= made.bbox.x1, "nothing is cut off"
        assert title.get_window_extent().y0 > axes.get_window_extent().y1
        assert axes.get_window_extent().height == pytest.approx(panel.get_window_extent().height), (
            "the panel keeps its size"
        )
