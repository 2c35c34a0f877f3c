"""`import`: counts of creatives that ran before become the prior."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bandit.cli.opening import opened_engine
from bandit.cli.options import DEFAULT_DATABASE, AsJson, Database, example, group
from bandit.cli.printing import print_json, print_line, print_table

app = group()


@app.command(
    "import",
    epilog=example(
        "import history.csv", "import decisions.csv", "import --from-database last-year.db --database ads.db"
    ),
)
def import_file(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A CSV in UTF-8, gzipped or not, with the columns campaign, creative, headline, impressions "
            "and clicks; body, call_to_action and context (a JSON object) too where there are such. Or the "
            "view decision_log: decision_id, campaign, creative, context, click and headline of each "
            "decision.",
        ),
    ] = None,
    *,
    from_database: Annotated[
        str | None,
        typer.Option(
            "--from-database",
            metavar="URL",
            help="Another database of ours, instead of a file: what it learnt.",
        ),
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Make counts of creatives that ran before part of the prior.

    Campaigns and creatives that are not there are added. Counts are added to those imported before; the same
    file or database again adds nothing. When a line is bad, nothing is imported.
    """
    from bandit.warm_start.csv_files import read_history

    if (file is None) == (from_database is None):
        raise typer.BadParameter("give either a file, or --from-database", param_hint="FILE")
    rows = [] if file is None else read_history(file)
    with opened_engine(database, is_created=True, is_learning=True) as engine:
        imported = engine.warm_start(rows) if from_database is None else engine.warm_start_from(from_database)
    if as_json:
        campaigns = [{"campaign": name, **asdict(counts)} for name, counts in imported.campaigns.items()]
        print_json({"campaigns": campaigns, "is_new": imported.is_new})
        return
    if not imported.is_new:
        print_line("imported before; nothing was added")
        return
    print_table(
        ("campaign", "creatives", "impressions", "clicks"),
        [
            (name, f"{counts.creatives:,}", f"{counts.impressions:,}", f"{counts.clicks:,}")
            for name, counts in imported.campaigns.items()
        ],
    )
