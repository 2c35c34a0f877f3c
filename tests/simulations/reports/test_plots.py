import dataclasses
import re
import struct
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from simulations.errors import SimulationError
from simulations.reports.curves import draw_horizons, draw_lift_over_time, draw_regret
from simulations.reports.plot_style import THEME, policy_styles, spread, svg, thinned, write_png
from simulations.reports.plots import draw_arms, draw_lift, draw_shares
from simulations.reports.results import (
    ArmInterval,
    HorizonCurve,
    LiftCurve,
    RegretCurve,
    ResultError,
    TrafficShares,
    regret_band,
)

POLICIES = ("engine", "plain-thompson", "greedy", "beta-thompson", "ucb1", "uniform", "oracle")
TIMES = np.arange(100, 100_100, 100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    policy: str = "engine"
    setting: str = "-"
    per_arm: int = 100
    tests: int = 12
    clicks: float = 340.5
    share_of_lift: float = 0.3
    standard_error: float = 0.02


def arm(**fields: object) -> ArmInterval:
    return ArmInterval(
        **{"creative_id": "calm", "impressions": 10, "estimate": 0.02, "low": 0.01, "high": 0.03} | fields
    )  # type: ignore[arg-type]  # fields by name


def shares(values: np.ndarray, n_times: int = 3) -> TrafficShares:
    ids = tuple(f"shoes-ad{i}" for i in range(values.shape[-1]))
    return TrafficShares("engine", np.arange(1, n_times + 1), ids, values)


def words(figure: object) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg(figure, "p", "a picture"))


def test_band_is_students_interval_of_the_mean() -> None:
    band = regret_band(RegretCurve("engine", np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])))
    # Sample deviation of 1, 3, 5 is 2, so the standard error is 2/√3; 4.30265 from Student's table.
    np.testing.assert_allclose(band.mean, [3.0, 2.0])
    np.testing.assert_allclose(band.high - band.mean, [4.30265 * 2 / np.sqrt(3), 0.0], rtol=1e-5)
    np.testing.assert_allclose(band.mean - band.low, band.high - band.mean)


def test_band_of_one_seed_has_no_width() -> None:
    band = regret_band(RegretCurve("engine", np.array([[1.0, 4.0]])))
    np.testing.assert_array_equal(band.low, band.high)
    np.testing.assert_array_equal(band.mean, [1.0, 4.0])


@pytest.mark.parametrize(
    ("regret", "message"),
    [
        (np.zeros(3), r"regret of greedy must have the shape \[seeds, time\], got \[3\]"),
        (np.zeros((0, 3)), r"got \[0, 3\]"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"regret of greedy must be finite, got nan at \[1, 1\]"),
    ],
)
def test_band_names_what_is_wrong(regret: np.ndarray, message: str) -> None:
    with pytest.raises(ResultError, match=message) as caught:
        regret_band(RegretCurve("greedy", regret))
    assert isinstance(caught.value, SimulationError)
    assert isinstance(caught.value, ValueError)


def test_regret_picture_draws_the_mean_of_each_policy_and_names_it() -> None:
    regret = np.linspace(0, 50, TIMES.size) * np.array([[1.0], [3.0]])
    figure = draw_regret([RegretCurve(policy, regret) for policy in POLICIES], TIMES)
    lines = figure.axes[0].get_lines()
    assert len(lines) == len(POLICIES)
    assert lines[0].get_xydata()[-1].tolist() == [100_000, 100.0]
    assert set(POLICIES) <= set(words(figure))


def test_engine_stands_out() -> None:
    styles = policy_styles(POLICIES)
    others = [styles[name] for name in POLICIES if name != "engine"]
    assert all(
        styles["engine"].width > style.width and styles["engine"].order > style.order for style in others
    )
    assert len({style.colour for style in styles.values()}) == len(POLICIES)
    assert len(set(policy_styles(["engine a", "engine b", "lin-ucb", "lola"]).values())) == 4


def test_a_policy_looks_the_same_in_all_pictures() -> None:
    assert policy_styles(["ucb1", "greedy"])["greedy"] == policy_styles(POLICIES)["greedy"]


def test_labels_on_pictures_can_be_read_on_both_pages() -> None:
    def luminance(colour: str) -> float:
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for page in (0, 1):
        paper = luminance(THEME["paper"][page])
        for name in set(THEME) - {"paper", "grid"}:
            light, dark = sorted((luminance(THEME[name][page]), paper), reverse=True)
            # WCAG 2.2, criterion 1.4.3: at least 4.5 for text.
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, page)


def test_lift_over_time_has_a_band_of_students_interval() -> None:
    share, error = np.array([0.1, 0.6]), np.array([0.02, 0.01])
    figure = draw_lift_over_time([LiftCurve("engine", share, error, 3)], np.array([50, 100]))
    area = figure.axes[0].collections[0].get_paths()[0].vertices
    assert area[:, 1].min() == pytest.approx(0.1 - 4.30265 * 0.02, rel=1e-5)
    assert area[:, 1].max() == pytest.approx(0.6 + 4.30265 * 0.01, rel=1e-5)
    assert "engine" in words(figure)


def test_horizons_are_drawn_at_their_length() -> None:
    curve = HorizonCurve("engine", np.array([[3.0, 8.0, 16.0], [5.0, 12.0, 24.0]]))
    figure = draw_horizons([curve], np.array([1_000, 4_000, 16_000]))
    line = figure.axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_xydata(), [[1_000, 4], [4_000, 10], [16_000, 20]])
    assert {"1,000", "4,000", "16,000"} <= set(words(figure))
    with pytest.raises(ResultError, match=r"needs a regret above 0, got 0 of ucb1"):
        draw_horizons([HorizonCurve("ucb1", np.array([[0.0, 1.0]]))], np.array([10, 20]))


def test_regret_picture_needs_policies_and_fitting_times() -> None:
    with pytest.raises(ResultError, match="at least one policy, got none"):
        draw_regret([], TIMES)
    with pytest.raises(ResultError, match="regret of ucb1 must have a column per time: expected 1000, got 7"):
        draw_regret([RegretCurve("ucb1", np.ones((2, 7)))], TIMES)


def test_shares_fill_the_picture_and_small_creatives_are_summed() -> None:
    values = np.tile(np.array([0.3, 0.2] + [0.05] * 10), (3, 1))
    figure = draw_shares(shares(values))
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in figure.axes[0].collections]
    assert len(tops) == 8
    assert tops[0] == pytest.approx(0.3)
    assert tops[-1] == pytest.approx(1.0)
    texts = " ".join(" ".join(words(figure)).split())
    assert "ad0 30 %" in texts
    assert "all others (5) 25 %" in texts
    assert "shoes-…" in texts


def test_shares_of_one_creative() -> None:
    assert "shoes-ad0 100 %" in " ".join(" ".join(words(draw_shares(shares(np.ones((3, 1)))))).split())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.ones((2, 1)),
            r"shares of engine must have the shape \[time, creatives\] = \[3, 1\], got \[2, 1\]",
        ),
        (np.array([[0.5, 0.5], [0.5, 0.9], [1, 0]]), "shares of engine must sum to 1, got 1.4 in row 1"),
        (np.full((3, 2), np.nan), "shares of engine must sum to 1, got nan in row 0"),
    ],
)
def test_shares_name_what_is_wrong(values: np.ndarray, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        draw_shares(shares(values))


def test_arms_are_ranked_and_the_truth_is_marked() -> None:
    arms = [arm(creative_id="calm", truth=0.011), arm(creative_id="bold", estimate=0.025, impressions=12_345)]
    figure = draw_arms(arms)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["calm", "bold"], (
        "the best is at the top"
    )
    assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "D"] == [0.011]
    assert "12,345" in words(figure)
    assert not [text for text in words(draw_arms([arm()])) if "true CTR" in text]


def test_arms_name_what_is_wrong() -> None:
    with pytest.raises(ResultError, match="at least one creative, got none"):
        draw_arms([])
    with pytest.raises(ResultError, match=r"CTR of bold must satisfy .*, got 0.04, 0.02, 0.05"):
        draw_arms([arm(), arm(creative_id="bold", low=0.04, high=0.05)])


def test_lift_leaves_out_the_bounds_and_draws_two_standard_errors() -> None:
    rows = [Row(policy=policy, per_arm=length) for policy in POLICIES for length in (1000, 100, 400)]
    figure = draw_lift(rows)
    texts = words(figure)
    assert {"engine", "greedy", "100", "400", "1,000"} <= set(texts)
    assert not {"uniform", "oracle"} & set(texts)
    bars = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert [round(segment[1][1] - segment[0][1], 6) for segment in bars] == [0.08] * 3


def test_lift_of_one_length_and_of_two_settings() -> None:
    rows = [
        Row(policy="ucb1", setting="scale=1", share_of_lift=0.5),
        Row(policy="ucb1", setting="scale=2", share_of_lift=0.2),
    ]
    figure = draw_lift(rows)
    assert words(figure).count("ucb1") == 1
    (bars,) = figure.axes[0].containers
    assert list(bars.lines[0].get_ydata()) == [0.5]  # the first


def test_lift_names_what_is_wrong() -> None:
    with pytest.raises(ResultError, match="other than uniform and oracle, got none"):
        draw_lift([Row(policy="oracle")])
    with pytest.raises(ResultError, match="one row of greedy, setting k=2, per_arm 400, got two"):
        draw_lift([Row(policy="greedy", setting="k=2", per_arm=400)] * 2)


def test_spread_keeps_order_gaps_and_bounds() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        wanted = rng.random(6)
        places = spread(wanted, 0.1)
        ranks = np.argsort(wanted)
        assert np.all(np.diff(places[ranks]) >= 0.1 - 1e-9)
        assert places.min() >= 0
        assert places.max() <= 1 + 1e-9
    np.testing.assert_allclose(spread(np.array([0.1, 0.9]), 0.1), [0.1, 0.9])
    np.testing.assert_allclose(spread(np.array([1.0, 1.0, 1.0]), 0.1), [0.8, 0.9, 1.0])


def test_thinned_keeps_both_ends() -> None:
    assert thinned(1).tolist() == [0]
    assert thinned(5).tolist() == [0, 1, 2, 3, 4]
    kept = thinned(100_000)
    assert kept[0] == 0
    assert kept[-1] == 99_999
    assert kept.size == 160


def test_svg_follows_the_theme_and_is_the_same_every_time() -> None:
    first, again = (svg(draw_arms([arm(truth=0.02)]), "p1", "CTR of arms") for _ in range(2))
    assert first == again
    assert first.startswith("<svg")
    assert 'role="img" aria-label="CTR of arms"' in first
    assert f"var(--blue, {THEME['blue'][0]})" in first
    assert not re.search(r'\bid="(?!p1-)', first)
    assert set(re.findall(r"url\(#([^)]*)\)", first)) <= set(re.findall(r'\bid="([^"]*)"', first))
    assert "font-family" not in first
    assert not re.search(r'<svg[^>]* (width|height)="', first)
    sizes = [float(size) for size in re.findall(r"font-size: ([0-9.]+)px", first)]
    assert sizes
    assert min(sizes) >= 9


def test_png_is_twice_the_size_of_a_screen(tmp_path: Path) -> None:
    path = tmp_path / "new" / "arms.png"
    figure = draw_arms([arm()])
    write_png(figure, path)
    data = path.read_bytes()
    width, _ = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert width == pytest.approx(192 * figure.get_figwidth(), rel=0.1), "cut to what is drawn"


def test_global_settings_are_untouched() -> None:
    before = dict(mpl.rcParams)
    svg(draw_arms([arm()]), "p", "x")
    assert dict(mpl.rcParams) == before
