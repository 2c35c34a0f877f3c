"""The demo: three campaigns played through the real engine, set beside other policies on the same worlds."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from bandit.engine import Engine
from bandit.jax_runtime import keep_compiled_programs
from bandit.learning.arm_summaries import N_CONTEXTS
from bandit.types import ArmReport, Creative, Outcome, Request
from encoders import Encoder, TextEncoder
from simulations.errors import SimulationError
from simulations.experiments.demo_output import Arm, print_arms, print_queries, print_scores, sections
from simulations.experiments.demo_shop import (
    CAMPAIGNS,
    SIZES,
    Campaign,
    Impressions,
    draw_impressions,
    open_shop,
)
from simulations.experiments.synthetic import play_worlds
from simulations.policies.settings import ENGINE_SETTINGS, PolicySetting
from simulations.reports.conclusions import by_ratio, conclude
from simulations.reports.files import write_report
from simulations.reports.scores import Played, Score, regret_curve, score, uniform_of
from simulations.sweep import progress_of
from simulations.worlds.ads import Ad

N_SEEDS = 24  # with eight, two standard errors of the engine's share of the lift are 18 points
COMPARED = tuple(setting for setting in ENGINE_SETTINGS if setting.policy in ("engine", "plain-thompson"))
PER_CAMPAIGN = 80  # impressions of one campaign between two updates; three fit one step of learning
ROUND = PER_CAMPAIGN * len(CAMPAIGNS)
FEWEST_IMPRESSIONS = 1_000  # below, there is nothing to be seen in the pictures
DATABASE, REPORT = "ads.db", "report.html"


class DemoError(SimulationError, ValueError):
    """A demo that cannot be run as asked."""


class DemoExistsError(DemoError, FileExistsError):
    """The folder holds a demo's database already."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What a demo made.

    Attributes:
        database: the engine's database.
        report: the page of pictures.
        scores: a row per policy; the first is the engine in simulation, the last the run in the database.
        arms: per campaign, its creatives as the engine reports them, with the truth.
        seconds: wall time of it all.
    """

    database: Path
    report: Path
    scores: tuple[Score, ...]
    arms: dict[str, tuple[Arm, ...]]
    seconds: float


class _Run(NamedTuple):
    """What the engine showed on each impression, as the creative's index, and what it says at the end."""

    shown: np.ndarray
    reports: list[list[ArmReport]]


def run_demo(
    folder: Path,
    *,
    impressions: int = 20_000,
    seed: int = 0,
    console: Console,
    overwrite: bool = False,
    encoder: Encoder | None = None,
) -> DemoResult:
    """Play three campaigns through the engine on SQLite; write ads.db and report.html, and say what came out.

    Args:
        folder: where the files go; made when it is not there.
        impressions: in all, of the three campaigns together.
        seed: of the ads, the truth, the traffic and the engine's draws.
        console: where tables and progress are shown.
        overwrite: whether files of an earlier demo are replaced.
        encoder: turns texts into vectors; None is the default encoder.

    Returns:
        What was made.

    Raises:
        DemoExistsError: the folder has a database already, and `overwrite` is not set.
        DemoError: too few impressions, or the folder is a file.
        MissingEncoderError: there is no encoder; says how to get it.
    """
    started = perf_counter()
    database, report = folder / DATABASE, folder / REPORT
    _check(database, impressions, overwrite)
    keep_compiled_programs()
    with progress_of(console) as bar:
        task = bar.add_task("encoding 60 ads by BERT", total=None)
        encoder = encoder or TextEncoder()
        shop = open_shop(seed, encoder)
        traffic = draw_impressions(shop, impressions, seed)
        bar.update(task, description="the engine plays, on SQLite", total=impressions)
        _clear(database, report)
        run = _play(database, shop, traffic, seed, encoder, lambda n: bar.advance(task, n))
        bar.remove_task(task)
        task = bar.add_task("simulating policies", total=len(COMPARED) * len(shop) * N_SEEDS)
        played = _compare(shop, impressions, lambda n: bar.advance(task, n))
    real = _as_played(run, traffic, len(shop))
    everyone = [*played, uniform_of(played[0]), real]
    scores = tuple(score(one, len(shop)) for one in everyone)
    arms = _arms(shop, traffic, run)
    write_report(
        report,
        "Three campaigns, 60 creatives",
        sections(everyone, run.shown, traffic.campaign, arms),
        lead=f"{_lead(scores, impressions)} {_conclusion(played, len(shop))}",
        settings=_settings(impressions, seed, encoder),
    )
    print_scores(console, scores, played[0])
    print_arms(console, arms)
    print_queries(console, database)
    return DemoResult(
        database=database, report=report, scores=scores, arms=arms, seconds=perf_counter() - started
    )


def _check(database: Path, impressions: int, overwrite: bool) -> None:
    if impressions < FEWEST_IMPRESSIONS:
        raise DemoError(f"expected at least {FEWEST_IMPRESSIONS:,} impressions, got {impressions:,}")
    if database.parent.exists() and not database.parent.is_dir():
        raise DemoError(f"expected a folder for the demo's files, got the file {database.parent}")
    if database.exists() and not overwrite:
        raise DemoExistsError(
            f"{database} is there already: name another folder, or allow it to be replaced (--overwrite)"
        )


def _clear(database: Path, report: Path) -> None:
    """Remove an earlier demo's files, and make the folder."""
    database.parent.mkdir(parents=True, exist_ok=True)
    for path in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm")), report):
        path.unlink(missing_ok=True)


def _play(
    database: Path,
    shop: Sequence[Campaign],
    traffic: Impressions,
    seed: int,
    encoder: Encoder,
    advance: Callable[[int], None],
) -> _Run:
    """Show every impression through the engine, in rounds; each round is learnt before the next."""
    n_impressions = len(traffic.contexts)
    shown = np.empty(n_impressions, np.int64)
    places = [{name: i for i, name in enumerate(one.view.creative_ids)} for one in shop]
    with Engine.open(database, learn="inline", seed=seed, encoder=encoder) as engine:
        for number, one in enumerate(shop):
            own = int((traffic.campaign == number).sum())
            engine.add_campaign(one.name, horizon=own, attribution_window=0)
            engine.add_creatives(one.name, [_creative(ad) for ad in one.ads])
        for start in range(0, n_impressions, ROUND):
            part = range(start, min(start + ROUND, n_impressions))
            decisions = engine.select_many(
                [
                    Request(
                        campaign=shop[traffic.campaign[i]].name,
                        context=traffic.contexts[i],
                        decision_id=f"impression-{i:06}",
                    )
                    for i in part
                ]
            )
            for i, decision in zip(part, decisions, strict=True):
                shown[i] = places[traffic.campaign[i]][decision.creative_id]
            clicks = traffic.uniforms[part] < traffic.rates[part, shown[part]]
            engine.update_many(
                [
                    Outcome(decision_id=decision.id, click=bool(click))
                    for decision, click in zip(decisions, clicks, strict=True)
                ]
            )
            advance(len(part))
        return _Run(shown, [engine.arms(one.name) for one in shop])


def _creative(ad: Ad) -> Creative:
    return Creative(ad.creative_id, headline=ad.headline, body=ad.body, call_to_action=ad.call_to_action)


def _compare(shop: Sequence[Campaign], impressions: int, advance: Callable[[int], None]) -> list[Played]:
    """Play the same campaigns by the compiled loop, each on its own, with other randomness for every seed."""
    worlds = [one.world for one in shop for _ in range(N_SEEDS)]
    own = impressions // ROUND * PER_CAMPAIGN
    return [
        play_worlds(worlds, setting, own, seeds=range(len(worlds)), batch=PER_CAMPAIGN, advance=advance)
        for setting in COMPARED
    ]


def _as_played(run: _Run, traffic: Impressions, n_campaigns: int) -> Played:
    """Return the engine's run in the form of a simulated one, campaign by campaign, in whole rounds."""
    n_rounds = len(run.shown) // ROUND

    def by_round(values: np.ndarray) -> np.ndarray:
        whole = values[: n_rounds * ROUND].reshape(n_rounds, PER_CAMPAIGN, n_campaigns, *values.shape[1:])
        total: np.ndarray = np.moveaxis(whole.sum(axis=1), 1, 0)
        return total

    n_arms = traffic.rates.shape[1]
    return Played(
        PolicySetting(policy="engine in ads.db"),
        PER_CAMPAIGN,
        earned=by_round(traffic.rates[np.arange(len(run.shown)), run.shown]),
        best=by_round(traffic.rates.max(axis=1)),
        uniform=by_round(traffic.rates.mean(axis=1)),
        shown=by_round(np.eye(n_arms)[run.shown]),
    )


def _arms(shop: Sequence[Campaign], traffic: Impressions, run: _Run) -> dict[str, tuple[Arm, ...]]:
    """Set the engine's reports beside the truth, over the same contexts: the newest distinct ones."""
    arms = {}
    for number, (one, reports) in enumerate(zip(shop, run.reports, strict=True)):
        truth = traffic.rates[traffic.campaign == number][-N_CONTEXTS:].mean(axis=0)
        by_id = dict(zip(one.view.creative_ids, truth.tolist(), strict=True))
        headlines = {ad.creative_id: ad.headline for ad in one.ads}
        arms[one.name] = tuple(
            Arm(report, headlines[report.creative_id], by_id[report.creative_id]) for report in reports
        )
    return arms


def _lead(scores: Sequence[Score], impressions: int) -> str:
    engine, plain = scores[0], scores[1]
    return (
        f"A simulated shop shows {impressions:,} impressions at three places, each with 20 ads of its own. "
        "Showing all alike earns 0 %, always the best ad for the request 100 % of the possible gain: the "
        f"engine got {100 * engine.share_of_lift:.0f} %, plain Thompson sampling on the same belief "
        f"{100 * plain.share_of_lift:.0f} % (means over {engine.seeds} seeds)."
    )


def _conclusion(played: Sequence[Played], n_campaigns: int) -> str:
    """Say how many fewer clicks the engine lost than the others, on the same seeds."""
    lost = [regret_curve(one, n_campaigns).regret[:, -1] for one in played]
    baselines = []
    for one, others in zip(played[1:], lost[1:], strict=True):
        ratio = float(lost[0].mean() / others.mean())
        error = (lost[0] - ratio * others).std(ddof=1) / others.mean() / len(others) ** 0.5
        baselines.append(by_ratio(one.setting.policy, 1 - ratio, float(error), len(others)))
    return conclude(baselines, verb="lost", better="fewer", worse="more", what="clicks")


def _settings(impressions: int, seed: int, encoder: Encoder) -> dict[str, object]:
    return {
        "impressions": impressions,
        "seed": seed,
        "seeds of the comparison": N_SEEDS,
        "impressions of a campaign between two updates": PER_CAMPAIGN,
        "encoder": encoder.fingerprint,
        "effects": ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(SIZES).items()),
        "policies": "; ".join(f"{setting.policy}: {setting.setting_id}" for setting in COMPARED),
        "jax": jax.__version__,
    }
