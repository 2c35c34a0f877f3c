"""Replaying a log from policies' names to a table of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bandit.decision_log.reading import read_log
from bandit.errors import LogError
from bandit.html_page import Section, with_small_print
from bandit.jax_runtime import keep_compiled_programs
from simulations.calibration import wilson
from simulations.experiments.log_replay import POLICIES, SETTINGS, Replayed, check_uniform, replay_log
from simulations.experiments.running import line_up, write_page, write_results
from simulations.policies.settings import PolicySetting
from simulations.reports.conclusions import by_difference, conclude
from simulations.reports.files import check_free
from simulations.reports.plots import draw_arms
from simulations.reports.results import ArmInterval
from simulations.sweep import progress_of

LARGE = 1_000_000_000  # of a sample, where a standard error is as sure as it gets


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What the log's own policy earned."""

    rows: int
    rate: float
    rate_error: float


@dataclass(frozen=True, kw_only=True)
class ReplayScore:
    """A row of results.

    Attributes:
        policy: its name.
        setting: its settings, in words.
        seeds: how many orders of the lines.
        accepted: lines that it saw, mean over seeds.
        accepted_share: of all lines.
        clicks: of these, mean over seeds.
        rate: clicks / accepted, over all seeds.
        rate_error: standard error of a single order, for all orders are of the same lines.
        late: the rate in the second half of the lines.
        late_error: likewise.
    """

    policy: str
    setting: str
    seeds: int
    accepted: float
    accepted_share: float
    clicks: float
    rate: float
    rate_error: float
    late: float
    late_error: float


def run_log(
    file: Path,
    out: Path,
    *,
    policies: Sequence[str],
    seeds: int,
    campaign: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> tuple[list[ReplayScore], Logged]:
    """Replay a log with every policy; write results.csv and report.html.

    Args:
        file: The log, see `decision_log.reading.read_log`.
        out: Folder for the results; made when it is not there.
        policies: Names out of `log_world.POLICIES`; the engine always plays.
        seeds: Orders of the lines.
        campaign: Whose decisions, where the file has several campaigns.
        overwrite: Whether results that are there are replaced.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, the engine's first, and what the log itself earned.

    Raises:
        ResultsExistError: the folder has results already, and `overwrite` is not set.
        LogError: the log cannot be used, its choices were not uniform, or a name or number is out of range.
    """
    names = line_up(policies, POLICIES, LogError)
    if seeds < 1:
        raise LogError(f"expected at least one seed, got {seeds}")
    check_free(out, overwrite=overwrite)
    lines = read_log(file, campaign)
    check_uniform(lines)
    keep_compiled_programs()
    scores = []
    with progress_of(console) as progress:
        task = progress.add_task("", total=len(names) * seeds)
        for name in names:
            progress.update(task, description=name)
            found = replay_log(
                lines, SETTINGS[name], seeds=range(seeds), advance=lambda n: progress.advance(task, n)
            )
            scores.append(score_of(SETTINGS[name], found, len(lines.action)))
    write_results(out, scores)
    n, rate = len(lines.reward), float(lines.reward.mean())
    logged = Logged(rows=n, rate=rate, rate_error=_error(rate, n))
    settings = {
        "file": file.name,
        **({"campaign": campaign} if campaign else {}),
        "lines": f"{n:,}",
        "seeds": f"{seeds}; each is an order of the lines",
    }
    title = f"Log, replayed: {file.name}"
    lead, sections = conclusion(scores), [replay_section(scores, logged)]
    write_page(out, title, sections, scores, lead=lead, settings=settings)
    return scores, logged


def conclusion(scores: Sequence[ReplayScore]) -> str:
    """Say in plain words what came out; the engine's row comes first. Orders of one log are one sample."""
    first, *others = scores
    baselines = [
        by_difference(
            row.policy, first.rate - row.rate, float(np.hypot(first.rate_error, row.rate_error)), LARGE
        )
        for row in others
    ]
    verb = "had a click rate"
    return conclude(baselines, verb=verb, better="higher", worse="lower", unit=" points")


def replay_section(scores: Sequence[ReplayScore], logged: Logged) -> Section:
    """Show the click rate of each policy on the lines that it saw."""
    own = ArmInterval(
        creative_id="the log itself",
        impressions=logged.rows,
        estimate=logged.rate,
        **_interval(logged.rate, logged.rows),
    )
    arms = [
        ArmInterval(
            creative_id=score.policy,
            impressions=round(score.accepted),
            estimate=score.rate,
            **_interval(score.rate, score.accepted),
        )
        for score in scores
    ]
    return Section(
        name="click-rates",
        heading="Click rate of each policy on the lines that it would have chosen alike",
        caption="The dot is the click rate over all orders of the lines, the bar the 95 % interval of a "
        "single order: all orders are of the same lines, so more of them do not make it surer. At the right, "
        "how many lines a policy saw.",
        picture=draw_arms([*arms, own]),
        table=with_small_print(REPLAY_HEADER, [*map(replay_row, scores), _row_of(own)]),
    )


REPLAY_HEADER = ("policy", "setting", "lines accepted", "clicks", "CTR", "last half")


def replay_row(score: ReplayScore) -> tuple[str, ...]:
    """Return a row as it is to be read, in the columns of `REPLAY_HEADER`."""
    return (
        score.policy,
        score.setting,
        f"{score.accepted:,.0f} ({100 * score.accepted_share:.2f} %)",
        f"{score.clicks:,.1f}",
        f"{100 * score.rate:.2f} ± {100 * score.rate_error:.2f} %",
        f"{100 * score.late:.2f} ± {100 * score.late_error:.2f} %",
    )


def _row_of(logged: ArmInterval) -> tuple[str, ...]:
    """Return the log's own row: it accepts all of itself, and its halves are no question here."""
    clicks = logged.estimate * logged.impressions
    error = _error(logged.estimate, logged.impressions)
    rate = f"{100 * logged.estimate:.2f} ± {100 * error:.2f} %"
    return (logged.creative_id, "-", f"{logged.impressions:,}", f"{clicks:,.1f}", rate, "–")


def _interval(rate: float, n: float) -> dict[str, float]:
    low, high = wilson(np.array(rate * n), np.array(n)) if n else (0.0, 1.0)
    return {"low": float(low), "high": float(high)}


def score_of(setting: PolicySetting, found: Replayed, n_lines: int) -> ReplayScore:
    """Return a policy's row of results."""
    accepted, clicks, late_accepted, late_clicks = (float(np.mean(leaf)) for leaf in found)
    rate = clicks / accepted if accepted else 0.0
    late = late_clicks / late_accepted if late_accepted else 0.0
    return ReplayScore(
        policy=setting.policy,
        setting=setting.setting_id,
        seeds=len(found.accepted),
        accepted=accepted,
        accepted_share=accepted / n_lines,
        clicks=clicks,
        rate=rate,
        rate_error=_error(rate, accepted),
        late=late,
        late_error=_error(late, late_accepted),
    )


def _error(rate: float, n: float) -> float:
    return float((rate * (1 - rate) / n) ** 0.5) if n else 0.0
