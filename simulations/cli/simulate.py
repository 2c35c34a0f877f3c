"""`demo`, `simulate archive`, `simulate synthetic`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.cli.options import AsJson, example, group, parse_integer, parse_number, show_help
from bandit.cli.printing import console, percent, print_json, print_line, print_table

if TYPE_CHECKING:
    from simulations.experiments.archive import Score
    from simulations.experiments.archive_tuning import Tried

demo_app = group()
app = group(callback=show_help, invoke_without_command=True)

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results; made when it is not there.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results that are in the folder.")]
Where = Annotated[
    str,
    typer.Option("--engine", metavar="here|local|ray", help="Play in this process, on several, or on Ray."),
]
NWorkers = Annotated[
    str, typer.Option("--workers", metavar="N", help="Processes of local, or of a Ray started here.")
]
Address = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of a Ray cluster that runs already.")]
Policies = Annotated[str, typer.Option(metavar="NAME,…", help="The policies; the engine always plays.")]


@demo_app.command(epilog=example("demo", "demo --out demo --impressions 5000 --overwrite"))
def demo(
    *,
    out: Out = Path(),
    impressions: Annotated[str, typer.Option(metavar="N", help="Impressions in all.")] = "20000",
    seed: Annotated[str, typer.Option(metavar="N", help="Seed of the simulated traffic.")] = "0",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace ads.db and report.html of an earlier demo.")
    ] = False,
) -> None:
    """Play three campaigns on simulated traffic: encode, choose, learn, and show it in SQL."""
    n_impressions, number = parse_integer(impressions, "--impressions"), parse_integer(seed, "--seed")
    from simulations.experiments.demo import run_demo

    run_demo(out, impressions=n_impressions, seed=number, overwrite=overwrite, console=console())


@app.command(
    epilog=example(
        "simulate archive packages.csv.gz --out out",
        "simulate archive packages.csv.gz --out out --ablations --cold-start",
        "simulate archive packages.csv.gz --out out --tune",
        "simulate archive packages.csv.gz --out out --engine local --workers 8",
        "simulate archive packages.csv.gz --out out --json",
    )
)
def archive(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV of past A/B tests, gzipped or not.")],
    *,
    out: Out,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keeps the texts' vectors for the next run.")
    ] = None,
    is_tuning: Annotated[
        bool,
        typer.Option("--tune", help="Try the policies' settings on the second fifth; writes tuning.csv."),
    ] = False,
    has_ablations: Annotated[
        bool, typer.Option("--ablations", help="Let engines play too that lack a part.")
    ] = False,
    has_cold_start: Annotated[
        bool, typer.Option("--cold-start", help="Let an engine play too that has no history at all.")
    ] = False,
    engine: Where = "here",
    n_workers: NWorkers = "2",
    address: Address = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Play past A/B tests with the engine and other policies: what share of the lift does each get?"""
    from simulations.experiments.archive_run import conclusion, run_archive
    from simulations.experiments.archive_tuning import run_tuning
    from simulations.sweep import Workers

    workers = Workers(engine=engine, n_workers=parse_integer(n_workers, "--workers"), address=address)

    if is_tuning:
        tried = run_tuning(file, out, cache=cache, console=console(is_error=True))
        if as_json:
            print_json({"tried": [asdict(row) for row in tried]})
            return
        print_table(
            ("policy", "chosen setting", "T", "tests", "share of lift"),
            [_tried_row(row) for row in tried if row.is_chosen],
            n_words=2,
        )
        print_line(f"written: {out / 'tuning.csv'}")
        return
    scores = run_archive(
        file,
        out,
        cache=cache,
        has_ablations=has_ablations,
        has_cold_start=has_cold_start,
        overwrite=overwrite,
        workers=workers,
        console=console(is_error=True),
    )
    if as_json:
        print_json({"scores": [asdict(score) for score in scores]})
        return
    print_table(
        ("policy", "setting", "weeks", "T", "tests", "share of lift", "behind engine"),
        [_score_row(score) for score in scores],
        n_words=3,
    )
    print_outcome(conclusion(scores), out)


def _tried_row(row: "Tried") -> tuple[str, ...]:
    return (
        row.policy,
        row.setting,
        f"{row.per_arm:,}",
        f"{row.tests:,}",
        f"{100 * row.share_of_lift:.1f} ± {percent(row.standard_error)}",
    )


@app.command(
    epilog=example(
        "simulate synthetic --out out",
        "simulate synthetic --preset new-arrivals --policies ucb1,lin-ts --out out",
        "simulate synthetic --ads --out out",
        "simulate synthetic --policies lin-ucb,lin-ts --base-rate 0.04 --residual 0.4 --tune --out out",
        "simulate synthetic --seeds 50 --tune --engine local --workers 8 --out out",
        "simulate synthetic --changes arriving=0.5,retiring=0.2 --out out",
    )
)
def synthetic(
    *,
    out: Out,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A kind of traffic, see docs/simulations.md.")
    ] = None,
    policies: Policies = "engine,plain-thompson,lin-ucb,lin-ts,logistic-ts,beta-thompson",
    seeds: Annotated[str, typer.Option(metavar="N", help="Worlds, each with traffic of its own.")] = "8",
    impressions: Annotated[
        str | None, typer.Option(metavar="N", help="Impressions of each world; 100000, or the preset's.")
    ] = None,
    creatives: Annotated[
        str | None, typer.Option(metavar="N", help="Creatives of each world; 20, or the preset's.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N", help="Impressions between two updates; 500, or the preset's.")
    ] = None,
    base_rate: Annotated[
        str | None, typer.Option(metavar="CTR", help="Base click rate of all worlds; else 0.005 to 0.05.")
    ] = None,
    residual: Annotated[
        str | None, typer.Option(metavar="SD", help="Sd of what is each creative's own, in logits; 0.25.")
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="SD",
            help="Sd of the effects of the texts' 12 words, in logits; no words if not given and no --ads.",
        ),
    ] = None,
    has_ads: Annotated[
        bool,
        typer.Option(
            "--ads",
            help="Let creatives be ads of the package's catalogue, read by BERT; their words are tones and "
            "offers, of sd 0.1 or --words. Else contents are random.",
        ),
    ] = False,
    changes: Annotated[
        str | None,
        typer.Option(metavar="NAME=NUMBER,…", help="How worlds change; replaces the preset's changes."),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="First choose each rival's setting from a grid, on other worlds.")
    ] = False,
    has_horizons: Annotated[
        bool,
        typer.Option(
            "--horizons/--no-horizons", help="Play runs of a sixteenth and a quarter of the impressions too."
        ),
    ] = True,
    engine: Where = "here",
    n_workers: NWorkers = "2",
    address: Address = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Play worlds with contexts whose truth is known: what does each policy lose while it learns?

    Finished runs are kept in the folder; the same command goes on where an earlier one was stopped.
    """
    from simulations.experiments.plans import N_WORDS, Plan, plan_of
    from simulations.experiments.synthetic_report import HEADER, conclusion, row_of
    from simulations.experiments.synthetic_run import run_synthetic
    from simulations.sweep import Workers
    from simulations.worlds.drift import parse_changes

    names = tuple(policies.split(","))
    plan = Plan(policies=names) if preset is None else plan_of(preset, names)
    sizes = plan.sizes
    if residual is not None:
        sizes = replace(sizes, residual=parse_number(residual, "--residual"))
    if words is not None:
        sizes = replace(sizes, words=parse_number(words, "--words"))
    if base_rate is not None:
        rate = parse_number(base_rate, "--base-rate")
        sizes = replace(sizes, base_rates=(rate, rate))
    plan = replace(
        plan,
        seeds=parse_integer(seeds, "--seeds"),
        impressions=_or(impressions, "--impressions", plan.impressions),
        creatives=_or(creatives, "--creatives", plan.creatives),
        batch=_or(batch, "--batch", plan.batch),
        sizes=sizes,
        n_words=0 if words is None or has_ads else N_WORDS,
        has_ads=has_ads,
        changes=plan.changes if changes is None else parse_changes(changes),
        is_tuned=tune,
        has_horizons=has_horizons,
    )
    workers = Workers(engine=engine, n_workers=parse_integer(n_workers, "--workers"), address=address)
    rows = run_synthetic(plan, out, overwrite=overwrite, workers=workers, console=console(is_error=True))
    if as_json:
        print_json({"scores": [asdict(row) for row in rows]})
        return
    print_table(HEADER, [row_of(row) for row in rows], n_words=2)
    print_outcome(conclusion(plan, rows), out)


def print_outcome(conclusion: str, out: Path) -> None:
    """Print what came out in plain words, and what was written."""
    if conclusion:
        print_line(conclusion)
    report = out / "report.html"
    print_line(f"written: {out / 'results.csv'}, {report}, its pictures in {out / 'report-figures'}")


def _or(text: str | None, option: str, default: int) -> int:
    return default if text is None else parse_integer(text, option)


def _score_row(score: "Score") -> tuple[str, ...]:
    return (
        score.policy,
        score.setting,
        score.weeks,
        f"{score.per_arm:,}",
        f"{score.tests:,}",
        f"{100 * score.share_of_lift:.1f} ± {percent(score.standard_error)}",
        f"{100 * score.behind_engine:.1f} ± {100 * score.behind_engine_error:.1f} points",
    )
