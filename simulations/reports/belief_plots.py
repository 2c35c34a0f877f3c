"""Pictures of what a policy says of its own choices: is it right, and how sure was it?"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from simulations.calibration import PROBABILITY_EDGES, Calibration, Record
from simulations.reports import plot_style as look
from simulations.reports.results import ResultError

WIDE = 12  # a range of rates, as a factor, that is drawn by factors


def draw_calibration(calibration: Calibration) -> Figure:
    """Draw the click rates that came against those that were expected; on the line they are the same.

    Args:
        calibration: in groups of like expectation.

    Returns:
        The figure, both scales of equal factors where the rates differ by much.

    Raises:
        ResultError: when there is no group.
    """
    if not len(calibration.expected):
        raise ResultError("a picture of calibration needs at least one group of impressions, got none")
    figure, axes = look.canvas(3.6, right=0.35)
    # Without a click the interval begins at 0, which a scale of equal factors has not.
    least = min(calibration.expected.min(), calibration.realised[calibration.realised > 0].min(initial=1.0))
    ends = (
        min(least, max(calibration.low.min(), least / 3)) / 1.15,
        min(1.0, 1.15 * max(calibration.expected.max(), calibration.high.max())),
    )
    axes.plot(ends, ends, color=look.MUTED, linewidth=1, zorder=2)
    axes.vlines(
        calibration.expected,
        np.maximum(calibration.low, ends[0]),
        calibration.high,
        color=look.BLUE,
        linewidth=3,
        alpha=0.35,
        zorder=3,
    )
    size = 14 + 60 * calibration.impressions / calibration.impressions.max()
    shown = np.maximum(calibration.realised, ends[0])
    axes.scatter(calibration.expected, shown, s=size, color=look.BLUE, zorder=4, linewidth=0)
    if ends[1] > WIDE * ends[0]:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    for axis in (axes.xaxis, axes.yaxis):
        if ends[1] > WIDE * ends[0]:
            axis.set_major_locator(look.by_factors(*ends))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(look.PERCENT)
    axes.grid(axis="x", color=look.GRID, linewidth=0.8)
    look.name_axes(axes, x="click rate expected", y="click rate that came, with its 95 % interval")
    return figure


def draw_probabilities(record: Record) -> Figure:
    """Draw how many impressions were chosen with which probability.

    Args:
        record: of one policy; leaves [bins].

    Returns:
        The figure; the scale of probabilities is one of equal factors.

    Raises:
        ResultError: when the record is of no impression.
    """
    counts = np.asarray(record.probabilities, float)
    if counts.sum() <= 0:
        raise ResultError("a picture of probabilities needs at least one impression, got none")
    figure, axes = look.canvas(2.6, right=0.35)
    edges = np.array([PROBABILITY_EDGES[0] / 10**0.2, *PROBABILITY_EDGES, 1.0])
    heights, widths = counts / counts.sum(), np.diff(edges)
    axes.bar(edges[:-1], heights, widths, align="edge", color=look.BLUE, edgecolor=look.PAPER)
    first = int(np.flatnonzero(counts)[0])
    axes.set_xscale("log")
    axes.set_xlim(edges[max(first - 1, 0)], 1.0)
    axes.xaxis.set_major_locator(look.by_factors(*axes.get_xlim()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(look.PERCENT)
    axes.yaxis.set_major_formatter(look.PERCENT)
    look.name_axes(axes, x="probability with which it was drawn", y="share of the impressions")
    return figure
