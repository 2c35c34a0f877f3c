"""Tuning: policies play the tuning tests with every setting of their grids; one is chosen for all T."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from bandit.jax_runtime import double_precision
from encoders import Encoder, TextEncoder
from simulations.experiments.archive import BATCHES, N_SEEDS, play_archive, prepared, scored
from simulations.experiments.archive_run import read_encoded
from simulations.policies.base import Problems
from simulations.policies.registry import ON_LOGITS, grid_of
from simulations.policies.settings import PolicySetting
from simulations.reports.files import write_csv
from simulations.sweep import progress_of

TUNED = tuple(name for name, one in ON_LOGITS.items() if one.grid)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A row of the tuning's results: one setting at one T.

    Attributes:
        policy: its name.
        setting: its settings.
        per_arm: T, impressions per headline.
        tests: how many were played.
        share_of_lift: (clicks − uniform's) / (oracle's − uniform's), a fraction.
        standard_error: of the share, by bootstrap over tests.
        mean_share: over all T, what settings are chosen by.
        is_chosen: whether no setting of the policy has a higher mean.
    """

    policy: str
    setting: str
    per_arm: int
    tests: int
    share_of_lift: float
    standard_error: float
    mean_share: float
    is_chosen: bool


def tune(
    groups: list[tuple[np.ndarray, Problems]],
    policies: Sequence[str],
    advance: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Tried]:
    """Play the tuning tests with every setting of some policies.

    Args:
        groups: from `archive.prepared`, of the tuning tests.
        policies: names, keys of the grids.
        advance: told the policy, T and the number of finished runs now and then.

    Returns:
        A row per policy, setting and T, in the grids' order.
    """
    rows: list[Tried] = []
    for policy in policies:
        settings = grid_of(policy, ON_LOGITS)
        shares = {
            per_arm: _shares(groups, settings, per_arm, partial(advance, policy, per_arm))
            for per_arm in BATCHES
        }
        means = {one: float(np.mean([shares[per_arm][one][0] for per_arm in BATCHES])) for one in settings}
        chosen = max(settings, key=means.__getitem__)
        rows += [
            Tried(
                policy=policy,
                setting=one.setting_id,
                per_arm=per_arm,
                tests=sum(len(members) for members, _ in groups),
                share_of_lift=shares[per_arm][one][0],
                standard_error=shares[per_arm][one][1],
                mean_share=means[one],
                is_chosen=one is chosen,
            )
            for one in settings
            for per_arm in BATCHES
        ]
    return rows


def run_tuning(
    path: Path,
    out: Path,
    *,
    cache: Path | None = None,
    policies: Sequence[str] = TUNED,
    encoder: Encoder | None = None,
    console: Console | None = None,
) -> list[Tried]:
    """Play the tuning tests of an archive with every setting of the policies' grids; write tuning.csv.

    Args:
        path: The archive's file, columns as in `replay.COLUMNS`.
        out: Folder for the results; made when it is not there.
        cache: File that keeps the headlines' vectors for the next run.
        policies: Who is tuned.
        encoder: Makes the vectors; None is the default encoder.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, setting and T; the chosen settings are marked.

    Raises:
        ArchiveError: The file cannot be used; names every bad line.
        MissingEncoderError: There is no encoder.
    """
    shown = console or Console(quiet=True)
    tests, vectors, components = read_encoded(path, encoder or TextEncoder(), cache, shown)
    with double_precision(), progress_of(shown) as progress:
        played, groups = prepared(tests, "tune", "all", vectors, components)
        n_settings = sum(len(grid_of(policy, ON_LOGITS)) for policy in policies)
        total = n_settings * len(played) * N_SEEDS * sum(BATCHES)
        task = progress.add_task("tuning", total=total)

        def advance(policy: str, per_arm: int, n_runs: int) -> None:
            progress.update(task, description=f"{policy}, T = {per_arm}")
            progress.advance(task, n_runs * per_arm)

        rows = tune(groups, policies, advance)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(rows, out / "tuning.csv", names={"per_arm": "T"})
    return rows


def _shares(
    groups: list[tuple[np.ndarray, Problems]],
    settings: Sequence[PolicySetting],
    per_arm: int,
    advance: Callable[[int], None],
) -> Mapping[PolicySetting, tuple[float, float]]:
    """Return each setting's share of the lift and its standard error."""
    outcomes = {one: play_archive(groups, one, per_arm, advance) for one in settings}
    scores = scored(outcomes, per_arm, "all")
    return {one: (row.share_of_lift, row.standard_error) for one, row in zip(settings, scores, strict=False)}
