"""Pictures of policies over time and over horizons: a line each, in a 95 % band."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports import plot_style as look
from simulations.reports.results import (
    Band,
    HorizonCurve,
    LiftCurve,
    RegretCurve,
    ResultError,
    errors_of_95,
    regret_band,
)


class _Line(NamedTuple):
    """A policy's line, with its band and where it is drawn."""

    policy: str
    times: Float[np.ndarray, "time"] | Int[np.ndarray, "time"]
    band: Band


def draw_regret(curves: Sequence[RegretCurve], impressions: Int[np.ndarray, "time"]) -> Figure:
    """Draw cumulative regret over time: a line per policy, in its 95 % band over seeds.

    Args:
        curves: one per policy.
        impressions: the times of the columns, in impressions.

    Returns:
        The figure.

    Raises:
        ResultError: when there is nothing to draw, or shapes do not fit.
    """
    lines = [_Line(curve.policy, impressions, regret_band(curve)) for curve in curves]
    figure, axes = _draw("regret", lines)
    axes.set_xlim(0, impressions[-1])
    axes.set_ylim(bottom=min(0.0, *(float(line.band.mean[-1]) for line in lines)))
    look.count_impressions(axes)
    axes.yaxis.set_major_formatter(look.COUNT)
    return _named(figure, axes, lines, x="impressions", y="clicks lost against always showing the best")


def draw_lift_over_time(curves: Sequence[LiftCurve], impressions: Int[np.ndarray, "stretches"]) -> Figure:
    """Draw the share of the oracle's lift that each policy got, stretch by stretch.

    Args:
        curves: one per policy; uniform and oracle are 0 and 1 by definition and are better left out.
        impressions: ends of the stretches.

    Returns:
        The figure.

    Raises:
        ResultError: when there is nothing to draw, or shapes do not fit.
    """
    lines = []
    for curve in curves:
        half = errors_of_95(curve.seeds) * curve.error if curve.seeds > 1 else np.zeros_like(curve.error)
        lines.append(
            _Line(curve.policy, impressions, Band(curve.share, curve.share - half, curve.share + half))
        )
    figure, axes = _draw("share of the lift", lines)
    axes.set_xlim(0, impressions[-1])
    lowest = min(float(line.band.mean.min()) for line in lines)
    axes.set_ylim(min(0.0, lowest) - 0.05, 1.02)
    axes.axhline(0, color=look.MUTED, linewidth=0.8)
    look.count_impressions(axes)
    axes.yaxis.set_major_formatter(look.PERCENT)
    y = "share of the possible gain (all alike is 0 %, always the best 100 %)"
    return _named(figure, axes, lines, x="impressions", y=y)


def draw_horizons(curves: Sequence[HorizonCurve], horizons: Int[np.ndarray, "horizons"]) -> Figure:
    """Draw what each policy loses in runs of different lengths, both on scales of equal factors.

    Args:
        curves: one per policy.
        horizons: impressions of the runs, increasing.

    Returns:
        The figure.

    Raises:
        ResultError: when there is nothing to draw, shapes do not fit, or a policy loses nothing.
    """
    lines = [_Line(curve.policy, horizons, regret_band(curve)) for curve in curves]
    for line in lines:
        if line.band.mean.min() <= 0:
            raise ResultError(
                "a scale of equal factors needs a regret above 0, "
                f"got {line.band.mean.min():g} of {line.policy}"
            )
    figure, axes = _draw("regret by horizon", lines, marker="o")
    lowest = min(float(line.band.mean.min()) for line in lines)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7 * lowest)
    axes.set_xticks(horizons, [f"{horizon:,}" for horizon in horizons])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(look.by_factors(*axes.get_ylim()))
    axes.yaxis.set_major_formatter(look.COUNT)
    return _named(figure, axes, lines, x="impressions of the run", y="clicks lost by the end of the run")


def _draw(what: str, lines: Sequence[_Line], marker: str | None = None) -> tuple[Figure, Axes]:
    """Draw all lines and their bands."""
    if not lines:
        raise ResultError(f"a picture of {what} needs at least one policy, got none")
    figure, axes = look.canvas(3.2, right=look.margin(line.policy for line in lines))
    styles = look.policy_styles([line.policy for line in lines])
    faint = 0.14 if len(lines) <= 3 else 0.05  # bands of many policies lie on each other
    for policy, times, band in lines:
        if band.mean.shape != np.shape(times):
            raise ResultError(
                f"{what} of {policy} must have a column per time: "
                f"expected {np.size(times)}, got {band.mean.size}"
            )
        at, style = look.thinned(band.mean.size), styles[policy]
        alpha = 0.14 if style.order == look.ENGINE_ORDER else faint
        axes.fill_between(
            times[at], band.low[at], band.high[at], color=style.colour, alpha=alpha, linewidth=0
        )
        axes.plot(
            times[at],
            band.mean[at],
            color=style.colour,
            linewidth=style.width,
            linestyle=style.dash,
            marker=marker,
            markersize=3 + style.width,
            zorder=style.order,
        )
    return figure, axes


def _named(figure: Figure, axes: Axes, lines: Sequence[_Line], *, x: str, y: str) -> Figure:
    """Name the axes and the ends of the lines."""
    look.name_axes(axes, x=x, y=y)
    ends = {line.policy: float(line.band.mean[-1]) for line in lines}
    look.label_ends(axes, ends, look.policy_styles([line.policy for line in lines]))
    return figure
