"""The report of a run of synthetic worlds."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bandit.features.design import PriorScales
from bandit.html_page import Section, with_small_print
from simulations.calibration import summed
from simulations.experiments.plans import N_TUNING, Plan
from simulations.experiments.running import write_page
from simulations.reports.conclusions import by_difference, by_ratio, conclude
from simulations.reports.results import HorizonCurve
from simulations.reports.scores import (
    Comparison,
    Played,
    impressions_of,
    lift_curve,
    regret_curve,
    stretch_ends,
    traffic_shares,
)
from simulations.reports.sections import (
    belief_sections,
    horizon_section,
    lift_section,
    regret_section,
    shares_section,
)

N_ENDS = 2  # uniform and oracle, the last rows
FATIGUE = (
    " Creatives tire here: the best is that of the moment as the policy itself has left it, so sparing a "
    "creative for later earns clicks, but no credit in the other columns. Compare clicks."
)
CONVERSIONS = " An impression is worth its conversion here: read conversions where it says clicks."
HEADER = (
    *("policy", "setting", "seeds", "clicks", "clicks lost"),
    *("of uniform's", "more than engine", "engine saves"),
)


def write_synthetic_report(
    out: Path,
    plan: Plan,
    outcomes: Sequence[Played],
    rows: Sequence[Comparison],
    horizons: Sequence[HorizonCurve],
    ads_by: str = "",
) -> None:
    """Write the page and the pictures of a run.

    Args:
        out: its folder.
        plan: what was played.
        outcomes: what each policy earned; the engine first, uniform and oracle last.
        rows: of the same, `played.compare`.
        horizons: what each policy lost in runs of the plan's horizons; none when there was one only.
        ads_by: Fingerprint of the encoder of ads; empty where contents are random.
    """
    *played, uniform, _ = outcomes
    engine, times = played[0], impressions_of(played[0])
    names = [f"creative {number}" for number in range(1, plan.creatives + 1)]
    sections = [
        comparison_section(plan, rows),
        regret_section([regret_curve(one) for one in (*played, uniform)], times),
        lift_section([lift_curve(one) for one in played], stretch_ends(engine)),
    ]
    losing = [curve for curve in horizons if curve.regret.mean(axis=0).min() > 0]
    if losing:  # a single creative loses nothing
        sections.append(horizon_section(losing, np.array(plan.horizons)))
    sections.append(shares_section(traffic_shares(engine, names, runs=[0])))
    if engine.record is not None:
        sections += belief_sections("engine", summed(engine.record))
    title = f"Synthetic worlds: {plan.preset}" if plan.preset else "Synthetic worlds with contexts"
    lead = conclusion(plan, rows)
    write_page(out, title, sections, rows[:-N_ENDS], lead=lead, settings=_settings(plan, ads_by))


def conclusion(plan: Plan, rows: Sequence[Comparison]) -> str:
    """Say in plain words what came out; with fatigue by what was earned, for regret is of other moments.

    Args:
        plan: what was played.
        rows: the engine's first; uniform's and oracle's last.
    """
    others = rows[1:-N_ENDS]
    if plan.has_fatigue:
        earned = rows[0].clicks
        baselines = [
            by_difference(row.policy, row.fewer_clicks / earned, row.fewer_clicks_error / earned, row.seeds)
            for row in others
        ]
        return conclude(baselines, verb="earned", better="more", worse="fewer", what=plan.earned)
    baselines = [
        by_ratio(row.policy, row.engine_saves, row.engine_saves_error, row.seeds)
        for row in others
        if row.engine_saves is not None and row.engine_saves_error is not None
    ]
    return conclude(baselines, verb="lost", better="fewer", worse="more", what=plan.earned)


def _settings(plan: Plan, ads_by: str) -> dict[str, object]:
    return {
        **({"preset": plan.preset} if plan.preset else {}),
        "impressions": f"{plan.impressions:,}",
        "creatives": f"{plan.creatives} ads of a product, vectors by encoder {ads_by}"
        if ads_by
        else plan.creatives,
        "seeds": f"{plan.seeds}; each is a world with traffic of its own",
        "impressions between two updates": plan.batch,
        "rivals' settings": f"the best of a grid on {N_TUNING} other worlds"
        if plan.is_tuned
        else "as shipped",
        "effects": ", ".join(f"{name} {value}" for name, value in asdict(plan.sizes).items()),
        **({"words": "tones and offers" if plan.has_ads else plan.n_words} if plan.has_words else {}),
        **({"changes": plan.changes.setting_id or "none"} if plan.changes else {}),
        "engine's prior": ", ".join(f"{name} {value:g}" for name, value in PriorScales()._asdict().items()),
    }


def comparison_section(plan: Plan, rows: Sequence[Comparison]) -> Section:
    """Show how much of uniform's regret each policy keeps."""
    return Section(
        heading="What each policy lost",
        caption="Clicks lost against always showing the best creative for each request, as a share of what "
        "showing all alike would have lost: 0 % is perfect, 100 % has learnt nothing. Differences are of "
        "runs in the same worlds with the same traffic. ± is one standard error over the worlds."
        + (FATIGUE if plan.has_fatigue else "")
        + (CONVERSIONS if plan.earned == "conversions" else ""),
        table=with_small_print(HEADER, [row_of(row) for row in rows]),
    )


def row_of(row: Comparison) -> tuple[str, ...]:
    """Return a row as it is to be read, in the columns of `HEADER`."""
    saves = row.engine_saves, row.engine_saves_error
    return (
        row.policy,
        row.setting,
        str(row.seeds),
        f"{row.clicks:,.0f}",
        f"{row.regret:,.0f} ± {row.regret_error:,.0f}",
        f"{100 * row.of_uniform:.1f} ± {100 * row.of_uniform_error:.1f} %",
        f"{100 * row.more_than_engine:+.1f} ± {100 * row.more_than_engine_error:.1f} points",
        "" if None in saves else f"{100 * (saves[0] or 0):.0f} ± {100 * (saves[1] or 0):.0f} %",
    )
