"""Pictures of simulation results; each function draws one figure of its own, without global state."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from simulations.reports import plot_style as look
from simulations.reports.results import ArmInterval, LiftRow, ResultError, TrafficShares

_MAX_AREAS: Final = len(look.FILLS)


def draw_shares(traffic: TrafficShares) -> Figure:
    """Draw who got the traffic over time, as stacked areas; the smallest creatives are drawn as one.

    Args:
        traffic: shares of one policy.

    Returns:
        The figure.

    Raises:
        ResultError: when shapes do not fit, or a row does not sum to 1.
    """
    shares = np.asarray(traffic.shares, dtype=np.float64)
    expected = (np.size(traffic.impressions), len(traffic.creative_ids))
    if shares.shape != expected or shares.size == 0:
        raise ResultError(
            f"shares of {traffic.policy} must have the shape [time, creatives] = {list(expected)}, "
            f"got {list(shares.shape)}"
        )
    totals = shares.sum(axis=1)
    if not np.allclose(totals, 1.0, atol=1e-6):
        worst = int(np.argmax(np.abs(totals - 1.0)))
        raise ResultError(f"shares of {traffic.policy} must sum to 1, got {totals[worst]:g} in row {worst}")
    prefix, areas = _areas(traffic.creative_ids, shares)
    # The lines that lead to the labels take a quarter of an inch.
    labels = [f"{name}  {_rounded(area[-1])}" for name, area in areas]
    figure, axes = look.canvas(3.2, right=max(1.75, 0.25 + look.margin(labels)))
    at = look.thinned(len(shares))
    fills = [
        look.FILL_OTHERS if name.startswith("all others") else fill
        for (name, _), fill in zip(areas, (*look.FILLS, look.FILL_OTHERS), strict=False)
    ]
    axes.stackplot(
        traffic.impressions[at],
        [area[at] for _, area in areas],
        colors=fills,
        edgecolor=look.PAPER,
        linewidth=0.5,
    )
    axes.set_xlim(traffic.impressions[0], traffic.impressions[-1])
    axes.set_ylim(0, 1)
    look.count_impressions(axes)
    axes.yaxis.set_major_formatter(look.PERCENT)
    look.name_axes(axes, x="impressions", y="share of the impressions")
    if prefix:
        look.note(axes, 1.06, 1.0, f"{prefix}…", offset=(5, 9), color=look.MUTED, va="bottom")
    last = np.array([area[-1] for _, area in areas])
    middles = np.cumsum(last) - last / 2
    for label, fill, middle, place in zip(labels, fills, middles, look.spread(middles, 0.07), strict=True):
        axes.plot(
            [1.01, 1.035, 1.06],
            [middle, place, place],
            color=fill,
            linewidth=2.5,
            clip_on=False,
            transform=axes.transAxes,
        )
        look.note(axes, 1.06, place, label, offset=(5, 0))
    return figure


def _areas(
    creative_ids: tuple[str, ...], shares: Float[np.ndarray, "time creatives"]
) -> tuple[str, list[tuple[str, Float[np.ndarray, "time"]]]]:
    """Name the areas from the bottom up, large ones first, small ones as one; ids lose what all share."""
    prefix = _shared_prefix(creative_ids)
    order = np.argsort(-shares.mean(axis=0) - shares[-1], kind="stable")
    areas = [(creative_ids[i][len(prefix) :], shares[:, i]) for i in order[:_MAX_AREAS]]
    if len(order) > _MAX_AREAS:
        rest = order[_MAX_AREAS:]
        areas.append((f"all others ({len(rest)})", shares[:, rest].sum(axis=1)))
    return prefix, areas


def _shared_prefix(creative_ids: Sequence[str]) -> str:
    """Return what all ids begin with, up to a hyphen; nothing for a single one."""
    first, last = min(creative_ids), max(creative_ids)
    differs = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[: first.rfind("-", 0, differs) + 1]


def _rounded(share: float) -> str:
    """Write a share in whole per cent; little is not nothing."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def draw_arms(arms: Sequence[ArmInterval]) -> Figure:
    """Draw each creative's CTR with its 95 % interval, best estimate first, and the true CTR where known.

    Args:
        arms: the creatives of one campaign.

    Returns:
        The figure; it grows with the number of creatives.

    Raises:
        ResultError: when there is nothing to draw, or an interval does not hold its estimate.
    """
    if not arms:
        raise ResultError("a picture of creatives needs at least one creative, got none")
    for arm in arms:
        if not 0 <= arm.low <= arm.estimate <= arm.high <= 1:
            raise ResultError(
                f"CTR of {arm.creative_id} must satisfy 0 ≤ low ≤ estimate ≤ high ≤ 1, "
                f"got {arm.low}, {arm.estimate}, {arm.high}"
            )
    ranked = sorted(arms, key=lambda arm: arm.estimate)
    prefix = _shared_prefix([arm.creative_id for arm in arms])
    names = [arm.creative_id.removeprefix(prefix) for arm in ranked]
    figure, axes = look.canvas(0.26 * len(arms) + 0.2, left=look.margin([*names, f"{prefix}…  "]), right=0.75)
    for row, arm in enumerate(ranked):
        axes.plot(
            [arm.low, arm.high], [row, row], color=look.BLUE, linewidth=3, alpha=0.35, solid_capstyle="round"
        )
        axes.plot(arm.estimate, row, "o", color=look.BLUE, markersize=6)
        if arm.truth is not None:
            axes.plot(
                arm.truth, row, "D", color=look.INK, markersize=6, fillstyle="none", markeredgewidth=1.3
            )
        place = (row + 0.6) / (len(arms) + 0.2)
        look.note(
            axes,
            1.0,
            place,
            f"{arm.impressions:,}",
            offset=(50, 0),
            color=look.MUTED,
            ha="right",
            va="center_baseline",
        )
    look.note(axes, 1.0, 1.0, "shown", offset=(50, 9), color=look.MUTED, ha="right", va="bottom")
    if prefix:
        look.note(axes, 0.0, 1.0, f"{prefix}…", offset=(-12, 9), color=look.MUTED, ha="right", va="bottom")
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.set_yticks(range(len(arms)), names)
    axes.tick_params(axis="y", labelcolor=look.INK)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(look.PERCENT)
    axes.grid(axis="x", color=look.GRID, linewidth=0.8)
    has_truth = any(arm.truth is not None for arm in arms)
    look.name_axes(axes, x="CTR", y="●  CTR, 95 % interval" + ("\u2003◇  truth" if has_truth else ""))
    return figure


def draw_lift(rows: Sequence[LiftRow]) -> Figure:
    """Draw the share of the oracle's lift by the length of the test: a line per policy, ± 2 standard errors.

    Uniform and oracle are 0 and 1 by definition and are left out. Of a policy with several settings, such as
    engines that lack a part, the first is drawn: a dozen lines of one colour say nothing.

    Args:
        rows: the archive's results.

    Returns:
        The figure.

    Raises:
        ResultError: when no policy is left to draw, or two rows are of the same policy, setting and length.
    """
    lines: dict[tuple[str, str], dict[int, LiftRow]] = {}
    for row in rows:
        line = lines.setdefault((row.policy, row.setting), {})
        if row.per_arm in line:
            raise ResultError(
                f"expected one row of {row.policy}, setting {row.setting}, per_arm {row.per_arm}, got two"
            )
        line[row.per_arm] = row
    drawn: dict[str, dict[int, LiftRow]] = {}
    for (policy, _), line in lines.items():
        if policy not in ("uniform", "oracle"):
            drawn.setdefault(policy, line)
    if not drawn:
        raise ResultError("a picture of lift needs a policy other than uniform and oracle, got none")
    styles = look.policy_styles(list(drawn))
    lengths = sorted({per_arm for line in drawn.values() for per_arm in line})
    figure, axes = look.canvas(3.2, right=look.margin(drawn))
    ends = {}
    for rank, (name, line) in enumerate(drawn.items()):
        points = sorted(line.values(), key=lambda row: row.per_arm)
        # A small step aside keeps the error bars of different policies from lying on each other.
        places = [lengths.index(row.per_arm) + 0.035 * (rank - (len(drawn) - 1) / 2) for row in points]
        style = styles[name]
        axes.errorbar(
            places,
            [row.share_of_lift for row in points],
            yerr=[2 * row.standard_error for row in points],
            color=style.colour,
            linewidth=style.width,
            linestyle=style.dash,
            marker="o",
            markersize=3.5 + style.width,
            elinewidth=1.2,
            capsize=2.5,
            zorder=style.order,
        )
        ends[name] = points[-1].share_of_lift
    axes.axhline(0, color=look.MUTED, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.25, len(lengths) - 0.75)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.yaxis.set_major_formatter(look.PERCENT)
    look.name_axes(
        axes, x="impressions per headline", y="share of the lift (uniform is 0 %, the oracle 100 %)"
    )
    look.label_ends(axes, ends, styles)
    return figure
