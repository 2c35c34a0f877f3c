"""`import`: counts of creatives that ran before become the prior."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from bandit.cli.opening import opened_engine
from bandit.cli.options import DEFAULT_DATABASE, AsJson, Database, example, group
from bandit.cli.printing import print_json, print_table
from bandit.records import HistoryRow

app = group()


@app.command("import", epilog=example("import history.csv"))
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A CSV in UTF-8 with the columns campaign, creative, headline, impressions and clicks; body "
            "and call_to_action too where there are such texts.",
        ),
    ],
    *,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Make counts of creatives that ran before part of the prior.

    Campaigns and creatives that are not there are added. Counts are added to those imported before, so import
    each file once. When a line is bad, nothing is imported.
    """
    from bandit.history import read_history

    rows = read_history(file)
    with opened_engine(database, is_created=True, is_learning=True) as engine:
        engine.warm_start(rows)
    totals = _totals(rows)
    if as_json:
        print_json({"campaigns": [{"campaign": name, **counts} for name, counts in totals.items()]})
    else:
        print_table(
            ("campaign", "creatives", "impressions", "clicks"),
            [(name, *(f"{count:,}" for count in counts.values())) for name, counts in totals.items()],
        )


def _totals(rows: list[HistoryRow]) -> dict[str, dict[str, int]]:
    """Return what was imported, campaign by campaign."""
    by_campaign: defaultdict[str, list[HistoryRow]] = defaultdict(list)
    for row in rows:
        by_campaign[row.campaign].append(row)
    return {
        name: {
            "creatives": len({row.creative.id for row in theirs}),
            "impressions": sum(row.impressions for row in theirs),
            "clicks": sum(row.clicks for row in theirs),
        }
        for name, theirs in by_campaign.items()
    }
