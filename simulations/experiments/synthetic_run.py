"""Running synthetic worlds from policies' names to report: tune, play, compare, write."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from bandit.jax_runtime import keep_compiled_programs
from encoders import Encoder, TextEncoder
from simulations.calibration import Record
from simulations.experiments.plans import N_TUNING, TUNING_SEED, Plan
from simulations.experiments.running import write_results
from simulations.experiments.synthetic import draw_world, play_worlds
from simulations.experiments.synthetic_report import write_synthetic_report
from simulations.grid_search import tuned
from simulations.policies.registry import IN_CONTEXTS, grid_of
from simulations.policies.settings import ENDS, ENGINE, WORLD_SETTINGS, PolicySetting
from simulations.reports.files import check_free
from simulations.reports.scores import Comparison, Played, compare, horizon_curve, oracle_of, uniform_of
from simulations.sweep import HERE, Arrays, Workers, code_digest, one_compiles, progress_of, run_cells
from simulations.worlds.ad_features import Texts, read_ads, write_ads


@dataclass(frozen=True, kw_only=True)
class Run:
    """A cell: one policy in one world of a plan.

    Attributes:
        plan: what the world is like, and how long it is played.
        setting: the policy.
        first_seed: of the plan's worlds.
        number: of the world among them, from 0; its traffic has the seed `first_seed + number`.
        texts: of its creatives; None where contents are random.
    """

    plan: Plan
    setting: PolicySetting
    first_seed: int
    number: int
    texts: Texts | None = None

    @property
    def identity(self) -> Mapping[str, object]:
        """All that its numbers depend on."""
        about = {name: value for name, value in asdict(self.plan).items() if name not in _OF_NO_RUN}
        return {
            "plan": about,
            "policy": self.setting.policy,
            "setting": asdict(self.setting),
            "first_seed": self.first_seed,
            "number": self.number,
            "texts": None if self.texts is None else self.texts.digest,
            "jax": jax.__version__,
            "code": code_digest(),
        }


_OF_NO_RUN = (
    "policies",
    "seeds",
    "is_tuned",
    "has_horizons",
    "preset",
)  # fields of a plan that say which runs there are


def play_run(run: Run) -> Arrays:
    """Play one cell; its arrays are those of a `Played`, without the axis of runs."""
    keep_compiled_programs()
    plan, seed = run.plan, run.first_seed + run.number
    world = draw_world(
        run.first_seed,
        run.number,
        n_creatives=plan.creatives,
        sizes=plan.sizes,
        changes=plan.changes,
        impressions=plan.impressions,
        n_words=plan.n_words,
        texts=run.texts,
    )
    window = plan.changes.window if plan.changes else 0
    with one_compiles(f"{run.setting.policy}-{plan.creatives}-{plan.batch}-{plan.impressions}-{window:g}"):
        played = play_worlds([world], run.setting, plan.impressions, seeds=[seed], batch=plan.batch)
    arrays = {name: getattr(played, name)[0] for name in _ARRAYS}
    if played.record is not None:
        arrays |= {name: leaves[0] for name, leaves in played.record._asdict().items()}
    return arrays


_ARRAYS = ("earned", "best", "uniform", "shown")  # of a `Played`


def run_synthetic(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    workers: Workers = HERE,
    console: Console | None = None,
    encoder: Encoder | None = None,
) -> list[Comparison]:
    """Play synthetic worlds with every policy; write results.csv and report.html, and tuning.csv if tuned.

    Each run is kept in the folder `cells` as soon as it is finished: a run that was interrupted goes on from
    there, and another one of more seeds or policies computes only those.

    Args:
        plan: what is to be played.
        out: Folder for the results; made when it is not there.
        overwrite: Whether results that are there are replaced; finished runs are kept all the same.
        workers: Where the runs are computed; the results do not depend on it.
        console: Where progress is shown; None shows none.
        encoder: Turns ads into vectors, where the plan has ads; None is the default encoder.

    Returns:
        A row per policy, the engine's first; uniform and oracle come last. They are exact, but in worlds
        with fatigue, where they play.

    Raises:
        ResultsExistError: The folder has results already, and `overwrite` is not set.
        SweepError: A run ended its worker again and again, or Ray is not installed.
        MissingEncoderError: The plan has ads, and there is no encoder; says how to get it.
        WorldError: A product has not as many ads.
    """
    check_free(out, overwrite=overwrite)
    others = [name for name in plan.policies if name != ENGINE]
    searched = [name for name in others if IN_CONTEXTS[name].grid] if plan.is_tuned else []
    grids = {name: grid_of(name, IN_CONTEXTS) for name in searched}
    n_trials = sum(map(len, grids.values()))
    tuning = range(TUNING_SEED, TUNING_SEED + N_TUNING) if grids else ()
    written = (*tuning, *range(plan.seeds)) if plan.has_ads else ()
    ads = {seed: write_ads(seed, plan.creatives) for seed in written}
    with progress_of(console) as progress:
        ends = ENDS if plan.has_fatigue else ()
        n_played = len(ends) + (1 + len(others)) * len(plan.horizons)
        texts, ads_by = dict[int, Texts](), ""
        if ads:
            task = progress.add_task("encoding ads by BERT", total=None)
            encoder = encoder or TextEncoder()
            texts = {seed: read_ads(of_one, encoder, seed) for seed, of_one in ads.items()}
            ads_by = encoder.fingerprint
            progress.remove_task(task)
        task = progress.add_task("", total=n_trials * N_TUNING + n_played * plan.seeds)

        def play(
            what: str, settings: Sequence[PolicySetting], first_seed: int, n_seeds: int, of: Plan = plan
        ) -> list[Played]:
            progress.update(task, description=what)
            runs = [
                Run(
                    plan=of,
                    setting=setting,
                    first_seed=first_seed,
                    number=number,
                    texts=texts.get(first_seed + number),
                )
                for setting in settings
                for number in range(n_seeds)
            ]
            found = run_cells(
                play_run, runs, workers=workers, kept=out / "cells", advance=lambda: progress.advance(task)
            )
            return [
                _joined(setting, plan.batch, found[i * n_seeds : (i + 1) * n_seeds])
                for i, setting in enumerate(settings)
            ]

        found, trials = tuned(grids, lambda settings: play("tuning", settings, TUNING_SEED, N_TUNING))
        settings = {**WORLD_SETTINGS, **found}
        chosen = [settings[name] for name in (ENGINE, *others)]
        outcomes = play("playing", [*chosen, *(PolicySetting(policy=name) for name in ends)], 0, plan.seeds)
        shorter = [
            play(f"playing {horizon:,}", chosen, 0, plan.seeds, replace(plan, impressions=horizon))
            for horizon in plan.horizons[:-1]
        ]
    if not ends:  # else what a moment offers depends on who played before it
        outcomes += [uniform_of(outcomes[0]), oracle_of(outcomes[0])]
    rows = compare(outcomes)
    write_results(out, rows, trials)
    by_length = [*shorter, outcomes[: len(chosen)]]
    curves = [horizon_curve(runs) for runs in zip(*by_length, strict=True)] if shorter else []
    write_synthetic_report(out, plan, outcomes, rows, curves, ads_by=ads_by)
    return rows


def _joined(setting: PolicySetting, batch: int, found: Sequence[Arrays]) -> Played:
    def stacked(names: Sequence[str]) -> list[np.ndarray]:
        return [np.stack([arrays[name] for arrays in found]) for name in names]

    has_record = Record._fields[0] in found[0]
    record = Record._make(stacked(Record._fields)) if has_record else None
    earned, best, uniform, shown = stacked(_ARRAYS)
    return Played(setting, batch, earned, best, uniform, shown, record)
