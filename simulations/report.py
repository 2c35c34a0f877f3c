"""Reports: tidy rows as CSV, and a page of pictures and tables that needs nothing but a browser."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from simulations.canvas import write_png
from simulations.page import Section, Table, write_html
from simulations.pictures import draw_arms, draw_lift, draw_regret, draw_shares
from simulations.results import ArmInterval, LiftRow, RegretCurve, ResultError, TrafficShares, regret_band

__all__ = [
    "ArmInterval",
    "LiftRow",
    "RegretCurve",
    "ResultError",
    "Section",
    "Table",
    "TrafficShares",
    "arms_section",
    "lift_section",
    "regret_section",
    "shares_section",
    "write_csv",
    "write_html",
    "write_png",
]


def write_csv(rows: Sequence[Any], path: Path, *, names: Mapping[str, str] | None = None) -> None:
    """Write records as CSV: a column per field, numbers in full, None and NaN as an empty cell.

    Args:
        rows: NamedTuples or dataclasses, all of one type.
        path: where to; missing folders are made.
        names: field -> name of its column, where they differ.

    Raises:
        ResultError: when there are no rows, or they are not records of one type.
    """
    if not rows:
        raise ResultError(f"expected at least one row to write to {path.name}, got none")
    kinds = {type(row) for row in rows}
    if len(kinds) > 1:
        raise ResultError(
            f"expected rows of one type in {path.name}, got {sorted(kind.__name__ for kind in kinds)}"
        )
    fields = _fields(rows[0])
    cells = [[_cell(getattr(row, field), field) for field in fields] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([(names or {}).get(field, field) for field in fields])
        writer.writerows(cells)


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
        heading="Clicks lost while learning",
        caption="Clicks that each policy has lost so far, compared with knowing the best creative for every "
        "request from the start. Lower is better; a line that turns flat has finished learning. The bands "
        "hold the mean with about 95 % confidence, judged from runs with different seeds.",
        picture=draw_regret(curves, impressions),
        table=Table(header=("policy", "clicks lost", "95 %", "seeds"), rows=rows),
    )


def shares_section(traffic: TrafficShares) -> Section:
    """Show who got the traffic; arguments and errors as in `pictures.draw_shares`."""
    picture = draw_shares(traffic)
    ranked = sorted(
        zip(traffic.creative_ids, traffic.shares.T, strict=True), key=lambda column: -column[1][-1]
    )
    return Section(
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


def lift_section(rows: Sequence[LiftRow]) -> Section:
    """Show the archive's results; arguments and errors as in `pictures.draw_lift`."""
    return Section(
        heading="How much of the possible gain each policy got",
        caption="Past A/B tests, played again. 0 % is what showing all headlines equally would have earned, "
        "100 % what always showing the best one would have. Longer tests leave more time to use what was "
        "learnt. Bars are ± 2 standard errors over the tests.",
        picture=draw_lift(rows),
        table=Table(
            header=("policy", "setting", "T", "tests", "clicks", "share of lift", "95 %"),
            rows=tuple(
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
            ),
        ),
    )


def _fields(row: Any) -> tuple[str, ...]:
    """List the fields of a record."""
    if dataclasses.is_dataclass(row):
        return tuple(field.name for field in dataclasses.fields(row))
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return tuple(row._fields)
    raise ResultError(f"expected a NamedTuple or a dataclass as a row, got {type(row).__name__}")


def _cell(value: Any, field: str) -> Any:
    """Turn NumPy's numbers into Python's, whose text is the shortest that reads back the same."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray | list | dict | tuple):
        raise ResultError(f"expected one value per cell, got {type(value).__name__} in {field}")
    return "" if value is None or value != value else value  # noqa: PLR0124  # only NaN differs from itself


def _percent(fraction: float, digits: int = 2) -> str:
    return f"{100 * fraction:.{digits}f} %".replace("-", "−")
