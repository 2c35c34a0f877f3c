"""Parts of reports: a picture each, how to read it, and its numbers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from bandit.html_page import Section, Table, with_small_print
from simulations.calibration import PROBABILITY_EDGES, Record, calibration_of
from simulations.reports.belief_plots import draw_calibration, draw_probabilities
from simulations.reports.curves import draw_horizons, draw_lift_over_time, draw_regret
from simulations.reports.plots import draw_arms, draw_lift, draw_shares
from simulations.reports.results import (
    ArmInterval,
    HorizonCurve,
    LiftCurve,
    LiftRow,
    RegretCurve,
    TrafficShares,
    regret_band,
)


def regret_section(curves: Sequence[RegretCurve], impressions: Int[np.ndarray, "time"]) -> Section:
    """Show regret over time; arguments and errors as in `pictures.draw_regret`."""
    ends = []
    for curve in curves:
        band = regret_band(curve)
        ends.append((float(band.mean[-1]), float(band.high[-1]), curve))
    rows = tuple(
        (curve.policy, f"{mean:,.0f}", f"± {high - mean:,.0f}", str(len(curve.regret)))
        for mean, high, curve in sorted(ends, key=lambda end: end[0])
    )
    return Section(
        name="regret",
        heading="Clicks lost while learning",
        caption="Clicks that each policy has lost so far, compared with knowing the best creative for every "
        "request from the start. Lower is better; a line that turns flat has finished learning. The bands "
        "hold the mean with 95 % confidence, judged from runs with different seeds.",
        picture=draw_regret(curves, impressions),
        table=Table(header=("policy", "clicks lost", "95 %", "seeds"), rows=rows),
    )


def lift_section(curves: Sequence[LiftCurve], impressions: Int[np.ndarray, "stretches"]) -> Section:
    """Show the share of the lift over time; arguments and errors as in `curves.draw_lift_over_time`."""
    rows = tuple(
        (curve.policy, *(_percent(curve.share[at], 0) for at in (0, len(curve.share) // 2, -1)))
        for curve in sorted(curves, key=lambda curve: -curve.share[-1])
    )
    return Section(
        name="lift",
        heading="Share of the possible gain, over time",
        caption="Of what always showing the best creative earns above showing all alike, how much did each "
        "policy get in each stretch of time? Higher is better. The bands hold it with 95 % confidence.",
        picture=draw_lift_over_time(curves, impressions),
        table=Table(header=("policy", "at the start", "halfway", "in the end"), rows=rows),
    )


def horizon_section(curves: Sequence[HorizonCurve], horizons: Int[np.ndarray, "horizons"]) -> Section:
    """Show the regret of runs of different lengths; arguments and errors as in `curves.draw_horizons`."""
    bands = [(curve.policy, regret_band(curve)) for curve in curves]
    return Section(
        name="horizons",
        heading="Clicks lost in shorter and longer runs",
        caption="Each dot is runs of their own in the same worlds, and policies are told how long they are. "
        "Where a line rises by less than its impressions, longer runs lose a smaller part of their clicks.",
        picture=draw_horizons(curves, horizons),
        table=Table(
            header=("policy", *(f"{horizon:,}" for horizon in horizons)),
            rows=tuple(
                (policy, *(f"{mean:,.0f}" for mean in band.mean))
                for policy, band in sorted(bands, key=lambda one: one[1].mean[-1])
            ),
        ),
    )


def belief_sections(policy: str, record: Record) -> list[Section]:
    """Show whether a policy's expectations were right, and how sure its choices were.

    Args:
        policy: its name.
        record: summed over batches and runs.
    """
    groups = calibration_of(record)
    shares = np.asarray(record.probabilities, float) / np.sum(record.probabilities)
    edges = (0.0, *PROBABILITY_EDGES, 1.0)
    return [
        Section(
            name="calibration",
            heading=f"Are its expectations right: {policy}",
            caption="Each dot is about a tenth of the impressions, by the click rate that was expected of "
            "the creative shown when it was chosen; its height is the click rate that was then reported. On "
            "the line both are the same; above it, more came than was expected.",
            picture=draw_calibration(groups),
            table=Table(
                header=("impressions", "expected", "came", "from", "to"),
                rows=tuple(
                    (f"{n:,.0f}", *(_percent(rate) for rate in rates))
                    for n, *rates in zip(*groups, strict=True)
                ),
            ),
        ),
        Section(
            name="probabilities",
            heading=f"How sure its choices were: {policy}",
            caption="With which probability was the creative drawn that was shown? At the right are choices "
            "that were all but certain, at the left trials. All are above 0, so the log can tell later what "
            "others would have earned.",
            picture=draw_probabilities(record),
            table=Table(
                header=("above", "up to", "share of the impressions"),
                rows=tuple(
                    (_percent(low), _percent(high), _percent(share))
                    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True)
                    if share
                ),
            ),
        ),
    ]


def shares_section(traffic: TrafficShares, name: str = "traffic") -> Section:
    """Show who got the traffic; `name` is that of the section, otherwise as in `pictures.draw_shares`."""
    picture = draw_shares(traffic)
    ranked = sorted(
        zip(traffic.creative_ids, traffic.shares.T, strict=True), key=lambda column: -column[1][-1]
    )
    return Section(
        name=name,
        heading=f"Who got the impressions: {traffic.policy}",
        caption="Each colour is one creative; its height is the share of the impressions that it got at that "
        "time. A bandit starts by trying all of them, then moves the traffic to the ones that earn clicks.",
        picture=picture,
        table=Table(
            header=("creative", "at the start", "in the end", "mean"),
            rows=tuple(
                (name, _percent(col[0]), _percent(col[-1]), _percent(col.mean())) for name, col in ranked
            ),
        ),
    )


def arms_section(campaign: str, arms: Sequence[ArmInterval]) -> Section:
    """Show what is known of each creative of a campaign; errors as in `pictures.draw_arms`."""
    has_truth = any(arm.truth is not None for arm in arms)
    rows = tuple(
        (
            arm.creative_id,
            f"{arm.impressions:,}",
            _percent(arm.estimate),
            _percent(arm.low),
            _percent(arm.high),
        )
        + ((_percent(arm.truth) if arm.truth is not None else "–",) if has_truth else ())
        for arm in sorted(arms, key=lambda arm: -arm.estimate)
    )
    return Section(
        name=f"creatives-{campaign}",
        heading=f"What is known of each creative: {campaign}",
        caption="The dot is the estimated CTR, the bar its 95 % interval. Creatives that were shown little "
        "keep wide bars on purpose: once one is clearly not the best, knowing it better is not worth clicks."
        + (" The diamond is the true CTR, which only the simulation knows." if has_truth else ""),
        picture=draw_arms(arms),
        table=Table(
            header=("creative", "shown", "CTR", "from", "to", *(("true CTR",) if has_truth else ())),
            rows=rows,
        ),
    )


def archive_section(rows: Sequence[LiftRow], name: str = "lift") -> Section:
    """Show the archive's results; `name` is that of the section, otherwise as in `pictures.draw_lift`."""
    return Section(
        name=name,
        heading="How much of the possible gain each policy got",
        caption="Past A/B tests, played again. 0 % is what showing all headlines equally would have earned, "
        "100 % what always showing the best one would have. Longer tests leave more time to use what was "
        "learnt. Bars are ± 2 standard errors over the tests. Other settings of a policy are in "
        "the table.",
        picture=draw_lift(rows),
        table=with_small_print(
            ("policy", "setting", "T", "tests", "clicks", "share of lift", "95 %"),
            [
                (
                    row.policy,
                    row.setting,
                    f"{row.per_arm:,}",
                    f"{row.tests:,}",
                    f"{row.clicks:,.0f}",
                    _percent(row.share_of_lift, 1),
                    f"± {_percent(2 * row.standard_error, 1)}",
                )
                for row in rows
            ],
        ),
    )


def _percent(fraction: float, digits: int = 2) -> str:
    return f"{100 * fraction:.{digits}f} %".replace("-", "−")
