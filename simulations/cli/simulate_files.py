"""`simulate log`, `simulate classification`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bandit.cli.options import AsJson, example, group, parse_integer
from bandit.cli.printing import console, percent, print_json, print_line, print_table
from simulations.cli.simulate import Out, Overwrite, Policies, print_outcome

app = group()


@app.command(
    epilog=example(
        "simulate log random.csv.gz --out out", "simulate log random.csv.gz --policies engine,ucb1 --out out"
    )
)
def log(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A log that showed all alike: a .csv with Open Bandit's columns or of storage export, or "
            "Vowpal Wabbit's .dsjson.",
        ),
    ],
    *,
    out: Out,
    policies: Policies = "engine,lin-ucb,lin-ts,logistic-ts,beta-thompson,ucb1",
    seeds: Annotated[str, typer.Option(metavar="N", help="Orders of the log's lines.")] = "8",
    campaign: Annotated[
        str | None, typer.Option(metavar="NAME", help="Needed with a file of several campaigns.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Replay a log of uniform choices: a policy sees the lines that it would have chosen alike."""
    from simulations.experiments.log_replay_run import REPLAY_HEADER, conclusion, replay_row, run_log

    scores, logged = run_log(
        file,
        out,
        policies=policies.split(","),
        seeds=parse_integer(seeds, "--seeds"),
        campaign=campaign,
        overwrite=overwrite,
        console=console(is_error=True),
    )
    if as_json:
        print_json({"logged": asdict(logged), "scores": [asdict(score) for score in scores]})
        return
    print_table(REPLAY_HEADER, [replay_row(score) for score in scores], n_words=2)
    rate = f"{percent(logged.rate, 2)} ± {percent(logged.rate_error, 2)}"
    print_line(f"the log itself: {rate} on {logged.rows:,} lines")
    print_outcome(conclusion(scores), out)


@app.command(
    epilog=example(
        "simulate classification shuttle.npz --out out",
        "simulate classification shuttle.npz --impressions 5000 --policies lin-ucb,logistic-ts --out out",
        "simulate classification shuttle.npz --impressions 5000 --tune --out out",
    )
)
def classification(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An .npz of numbers X [rows, features] and labels y [rows]."),
    ],
    *,
    out: Out,
    policies: Policies = "engine,lin-ucb,lin-ts,logistic-ts,epsilon-greedy,beta-thompson,uniform",
    seeds: Annotated[str, typer.Option(metavar="N", help="Orders of the rows.")] = "8",
    impressions: Annotated[
        str | None, typer.Option(metavar="N", help="Rows of each run; all when not given.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N", help="Rows between two updates.")] = "50",
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="First choose each rival's setting from a grid, on other orders of the rows."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Play a table with labels: each row is a request, each label an arm, the right one a click."""
    from simulations.experiments.classification_run import (
        LABEL_HEADER,
        conclusion,
        label_row,
        run_classification,
    )

    scores = run_classification(
        file,
        out,
        policies=policies.split(","),
        seeds=parse_integer(seeds, "--seeds"),
        impressions=None if impressions is None else parse_integer(impressions, "--impressions"),
        batch=parse_integer(batch, "--batch"),
        is_tuned=tune,
        overwrite=overwrite,
        console=console(is_error=True),
    )
    if as_json:
        print_json({"scores": [asdict(score) for score in scores]})
        return
    print_table(LABEL_HEADER, [label_row(score) for score in scores], n_words=2)
    print_outcome(conclusion(scores), out)
