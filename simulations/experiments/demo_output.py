"""What the demo shows: tables on the console, sections of its page, and its database asked in SQL."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bandit.html_page import Section
from bandit.types import ArmReport
from simulations.calibration import summed
from simulations.reports.results import ArmInterval, TrafficShares
from simulations.reports.scores import Played, Score, impressions_of, lift_curve, regret_curve, stretch_ends
from simulations.reports.sections import (
    arms_section,
    belief_sections,
    lift_section,
    regret_section,
    shares_section,
)

TOP_ARMS = 4
N_TIMES = 25
QUERIES = (
    (
        "Which creative leads in each campaign?",
        "select campaign, creatives, impressions, clicks, clicks_pct, leader, leader_ctr_pct, "
        "leader_p_best_pct from campaign_report",
    ),
    (
        "How do the creatives of one campaign do, and how sure is that?",
        "select creative, impressions, clicks, ctr_pct, ctr_low_pct, ctr_high_pct, p_best_pct "
        "from arm_report where campaign = 'home-page' limit 6",
    ),
    (
        "Does it learn? The traffic in four quarters, with the logged propensities.",
        "select quarter, count(*) as impressions, sum(click) as clicks, round(100.0 * avg(click), 2) as "
        "clicks_pct, round(avg(propensity), 3) as mean_propensity, min(propensity) as least_propensity "
        "from (select click, propensity, ntile(4) over (order by decision_id) as quarter from decision_log) "
        "group by quarter",
    ),
)


class Arm(NamedTuple):
    """One creative at the end of the demo.

    Attributes:
        report: what the engine says.
        headline: its text.
        truth: its true click rate over the contexts that the report speaks of.
    """

    report: ArmReport
    headline: str
    truth: float


def sections(
    played: Sequence[Played],
    shown: np.ndarray,
    campaign: np.ndarray,
    arms: Mapping[str, Sequence[Arm]],
) -> list[Section]:
    """Return the parts of the page.

    Args:
        played: all policies, each campaign by campaign.
        shown: what the engine showed: index of the creative, [impressions].
        campaign: index of each impression's campaign.
        arms: per campaign, its creatives.
    """
    curves = [regret_curve(one, len(arms)) for one in played]
    n_campaigns, learning = len(arms), [one for one in played if one.setting.policy != "uniform"]
    parts = [
        regret_section(curves, impressions_of(played[0], n_campaigns)),
        lift_section(
            [lift_curve(one, n_campaigns) for one in learning], stretch_ends(played[0], n_campaigns)
        ),
    ]
    if played[0].record is not None:
        parts += belief_sections("engine", summed(played[0].record))
    for number, (name, own) in enumerate(arms.items()):
        ids = tuple(arm.report.creative_id for arm in own)
        parts += [
            shares_section(_shares(name, ids, shown[campaign == number]), f"traffic-{name}"),
            arms_section(name, [_interval(arm) for arm in own]),
        ]
    return parts


def _shares(campaign: str, ids: tuple[str, ...], shown: np.ndarray) -> TrafficShares:
    stretches = np.array_split(shown, N_TIMES)
    shares = np.stack([np.bincount(part, minlength=len(ids)) / len(part) for part in stretches])
    ends = np.cumsum([len(part) for part in stretches])
    return TrafficShares(f"engine, {campaign}", ends, ids, shares)


def _interval(arm: Arm) -> ArmInterval:
    return ArmInterval(
        creative_id=arm.report.creative_id,
        impressions=arm.report.impressions,
        estimate=arm.report.ctr,
        low=arm.report.ctr_low,
        high=arm.report.ctr_high,
        truth=arm.truth,
    )


def print_scores(console: Console, scores: Sequence[Score], played: Played) -> None:
    """Print what each policy earned; clicks are expected ones, which no luck can flatter."""
    total = scores[0].impressions
    table = _table(
        f"Expected clicks of {total:,} impressions",
        ("policy", "seeds"),
        ("clicks", "share of the lift", "clicks lost"),
    )
    for row in scores:
        several = row.seeds > 1
        table.add_row(
            row.policy,
            str(row.seeds),
            f"{row.clicks:,.0f}",
            f"{row.share_of_lift:.0%}" + (f" ± {2 * row.standard_error:.0%}" if several else ""),
            f"{row.regret:,.0f}" + (f" ± {2 * row.regret_error:,.0f}" if several else ""),
            style="bold" if row.policy == "engine" else "",
        )
    best = played.best.sum() / scores[0].seeds
    table.add_row("always the best ad", "", f"{best:,.0f}", "100%", "0")
    _print(console, table)


def print_arms(console: Console, arms: Mapping[str, Sequence[Arm]]) -> None:
    """Print the creatives that probably are the best of each campaign, with the truth."""
    table = _table(
        "The leading creatives, by what the engine has learnt",
        ("campaign", "headline"),
        ("shown", "clicks", "CTR", "95 % interval", "true CTR", "P(best)"),
    )
    for name, own in arms.items():
        ranked = sorted(own, key=lambda arm: -arm.report.p_best)
        for place, (report, headline, truth) in enumerate(ranked[:TOP_ARMS]):
            table.add_row(
                name if place == 0 else "",
                headline,
                f"{report.impressions:,}",
                f"{report.clicks:,}",
                f"{report.ctr:.2%}",
                f"{report.ctr_low:.2%} – {report.ctr_high:.2%}",
                f"{truth:.2%}",
                f"{report.p_best:.0%}",
                end_section=place == TOP_ARMS - 1,
            )
    _print(console, table)


def print_queries(console: Console, database: Path) -> None:
    """Ask the database three questions, and print question, SQL and answer."""
    # Not opened read-only: such a connection would leave SQLite's side files behind.
    connection = sqlite3.connect(database)
    try:
        for question, sql in QUERIES:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
            numeric = [
                all(isinstance(cell, int | float) for cell in column) for column in zip(*rows, strict=True)
            ]
            table = Table(box=SIMPLE_HEAD, pad_edge=False)
            for name, is_numeric in zip(names, numeric, strict=True):
                table.add_column(name, justify="right" if is_numeric else "left")
            for row in rows:
                table.add_row(*map(_cell, row))
            console.print(Text(question, style="bold"))
            console.print(Text(f'sqlite3 {database} "{sql}"', style="dim"), soft_wrap=True)
            console.print(table)
    finally:
        connection.close()


def _cell(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in words:
        table.add_column(name, max_width=44)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _print(console: Console, table: Table) -> None:
    console.print(table)
