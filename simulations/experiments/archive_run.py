"""Running the archive from file to report: encode, fit the prior, play every policy, score, write."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from bandit.features.content_pca import Components, random_components, shipped_components
from bandit.features.design import PriorScales
from bandit.html_page import Section, with_small_print
from bandit.jax_runtime import double_precision, keep_compiled_programs
from encoders import Encoder, FileCache, TextEncoder, encode_cached
from simulations.errors import ArchiveError
from simulations.experiments.ablations import ablations
from simulations.experiments.archive import (
    BATCHES,
    N_SEEDS,
    Cell,
    Played,
    Score,
    play_cells,
    prepared,
    scored,
)
from simulations.experiments.cold_start import play_cold
from simulations.experiments.running import write_page, write_results
from simulations.policies.registry import ON_LOGITS
from simulations.policies.settings import ARCHIVE_SETTINGS, PolicySetting, engine_setting
from simulations.reports.conclusions import by_difference, conclude
from simulations.reports.files import check_free
from simulations.reports.sections import archive_section
from simulations.sweep import HERE, Workers, progress_of
from simulations.worlds.archive import PastTest, read_archive

COLD_STARTS = {engine_setting("cold start"): False, engine_setting("cold start, scales learnt"): True}
FEWEST_TESTS = 20  # below, the cuts at 20 % and 40 % leave nothing to learn from or to play


def run_archive(
    path: Path,
    out: Path,
    *,
    cache: Path | None = None,
    part: str = "score",
    settings: Sequence[PolicySetting] = tuple(ARCHIVE_SETTINGS.values()),
    has_ablations: bool = False,
    has_cold_start: bool = False,
    encoder: Encoder | None = None,
    overwrite: bool = False,
    workers: Workers = HERE,
    console: Console | None = None,
) -> list[Score]:
    """Play an archive of A/B tests with every policy; write results.csv and report.html.

    results.csv is written anew after each T. What a policy earned at one T is kept in the folder `cells`: a
    run that was stopped goes on from there.

    Args:
        path: The archive's file, columns as in `replay.COLUMNS`.
        out: Folder for the results; made when it is not there.
        cache: File that keeps the headlines' vectors for the next run.
        part: "score", or "tune" to look without the scored tests.
        settings: The policies; the first is the one that others are compared with.
        has_ablations: Whether engines that lack a part play too.
        has_cold_start: Whether an engine without any history plays too.
        encoder: Makes the vectors; None is the default encoder.
        overwrite: Whether results that are there are replaced; finished cells are kept all the same.
        workers: Where policies are played; the results do not depend on it.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, T and choice of weeks.

    Raises:
        ResultsExistError: The folder has results already, and `overwrite` is not set.
        SweepError: A cell ended its worker again and again, or Ray is not installed.
        ArchiveError: The file cannot be used; names every bad line.
        MissingEncoderError: There is no encoder.
    """
    check_free(out, overwrite=overwrite)
    shown = console or Console(quiet=True)
    encoder = encoder or TextEncoder()
    tests, vectors, components = read_encoded(path, encoder, cache, shown)
    rows = []
    with double_precision(), progress_of(shown) as progress:
        task = progress.add_task("playing", total=None)
        known: dict[tuple[int, PolicySetting], Played] = {}
        for weeks in ("all", "sound"):
            played, groups = prepared(tests, part, weeks, vectors, components)
            problems = dict.fromkeys(settings, groups)
            if weeks == "all" and has_ablations:
                for one, scales, fitted in ablations(tests, vectors, components, encoder):
                    problems[one] = prepared(tests, part, weeks, vectors, fitted, scales)[1]
            cold = COLD_STARTS if weeks == "all" and has_cold_start else {}
            shown.print(
                f"weeks {weeks}: {len(played):,} tests are played from the prior of those before them"
            )
            n_runs = (len(problems) + len(cold)) * len(played) * N_SEEDS
            progress.update(task, completed=0, total=n_runs * sum(BATCHES))
            for per_arm in BATCHES:
                progress.update(task, description=f"weeks {weeks}, T = {per_arm}")
                advance = partial(_advance, progress, task, per_arm)
                old = {
                    one: known[per_arm, one]
                    for one in problems
                    if (per_arm, one) in known and len(known[per_arm, one].earned) == len(played)
                }
                advance(len(old) * len(played) * N_SEEDS)
                new = [one for one in problems if one not in old]
                found = play_cells(
                    [Cell(groups=problems[one], setting=one, per_arm=per_arm) for one in new],
                    workers=workers,
                    kept=out / "cells",
                    advance=partial(advance, len(played) * N_SEEDS),
                )
                everyone = old | dict(zip(new, found, strict=True))
                # They play the same tests in the same way whatever the weeks.
                known |= {(per_arm, one): everyone[one] for one in new if not ON_LOGITS[one.policy].has_prior}
                outcomes = {one: everyone[one] for one in problems}
                for one, is_learning in cold.items():
                    outcomes[one] = play_cold(tests, vectors, components, part, is_learning, per_arm, advance)
                first, *others = scored(outcomes, per_arm, weeks)
                rows += [first, *others]
                write_results(out, rows, names={"per_arm": "T"})
                shown.print(
                    f"weeks {weeks}, T = {per_arm}: {first.policy} has {100 * first.share_of_lift:.1f} % of "
                    f"the lift; {out / 'results.csv'} holds {len(rows)} rows"
                )
    _write_report(out, rows, path, part)
    return rows


def read_encoded(
    path: Path, encoder: Encoder, cache: Path | None, console: Console
) -> tuple[list[PastTest], Mapping[str, np.ndarray], Components]:
    """Return an archive's tests in order, the vector of every headline, and the components.

    Raises:
        ArchiveError: The file cannot be used, or is too short; names every bad line.
    """
    keep_compiled_programs()
    tests = read_archive(path)
    if len(tests) < FEWEST_TESTS:
        raise ArchiveError(
            f"{path}: {len(tests)} tests; at least {FEWEST_TESTS} are needed to cut at 20 % and 40 %"
        )
    console.print(f"{len(tests):,} tests, {sum(len(test.headlines) for test in tests):,} headlines")
    return tests, *encode_archive(tests, encoder, cache)


def encode_archive(
    tests: Sequence[PastTest], encoder: Encoder, cache: Path | None
) -> tuple[Mapping[str, np.ndarray], Components]:
    """Return the vector of every headline, and the components for the encoder."""
    headlines = sorted({headline for test in tests for headline in test.headlines})
    vectors = encode_cached(encoder, headlines, None if cache is None else FileCache(cache))
    shipped = shipped_components(encoder)
    return dict(zip(headlines, vectors, strict=True)), shipped or random_components(encoder.dim, 0)


def _advance(progress: Progress, task: TaskID, per_arm: int, n_runs: int) -> None:
    progress.advance(task, n_runs * per_arm)


def conclusion(rows: Sequence[Score]) -> str:
    """Say in plain words what came out for the longest tests, of all weeks; the engine's row comes first."""
    longest = max(BATCHES)
    first, *others = (row for row in rows if row.weeks == "all" and row.per_arm == longest)
    baselines = [
        by_difference(row.policy, row.behind_engine, row.behind_engine_error, row.tests)
        for row in others
        if row.policy not in (first.policy, "uniform", "oracle")
    ]
    what = "of the possible gain"
    found = conclude(baselines, verb="got", better="more", worse="less", what=what, unit=" points")
    return found and f"With {longest:,} impressions a headline: {found[0].lower()}{found[1:]}"


def _write_report(out: Path, rows: Sequence[Score], path: Path, part: str) -> None:
    longest = [row for row in rows if row.weeks == "all" and row.per_arm == max(BATCHES)]
    settings = {
        "file": path.name,
        "part": part,
        "seeds": N_SEEDS,
        "batches": ", ".join(f"{batch} at T = {per_arm}" for per_arm, batch in BATCHES.items()),
        "prior scales": ", ".join(f"{name} {value:g}" for name, value in PriorScales()._asdict().items()),
    }
    sections = [archive_table(longest), archive_section([row for row in rows if row.weeks == "all"])]
    without = archive_section([row for row in rows if row.weeks == "sound"], "lift-sound-weeks")
    sections.append(replace(without, heading=f"{without.heading}: without the weeks of faulty randomisation"))
    title = f"Archive of A/B tests: {path.name}"
    write_page(out, title, sections, longest, lead=conclusion(rows), settings=settings)


def archive_table(rows: Sequence[Score]) -> Section:
    """Show all policies side by side at one T."""
    return Section(
        heading=f"What each policy got, with {rows[0].per_arm:,} impressions a headline",
        caption="Share of what always showing the best headline would earn above showing all alike. "
        "Differences from the engine are of the same tests with the same luck. ± is one standard error over "
        "the tests.",
        table=with_small_print(
            ("policy", "setting", "tests", "clicks", "share of the lift", "behind the engine"),
            [
                (
                    row.policy,
                    row.setting,
                    f"{row.tests:,}",
                    f"{row.clicks:,.0f}",
                    f"{100 * row.share_of_lift:.1f} ± {100 * row.standard_error:.1f} %",
                    f"{100 * row.behind_engine:.1f} ± {100 * row.behind_engine_error:.1f} points",
                )
                for row in sorted(rows, key=lambda row: -row.share_of_lift)
            ],
        ),
    )
