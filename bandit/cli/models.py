"""`model`: what the model is, and what its last learning steps reported about themselves."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import DEFAULT_DATABASE, AsJson, Database, example, group
from bandit.cli.printing import print_fields, print_json, print_table

app = group()

COLUMNS = (
    "step", "kind", "learnt at", "decisions", "clicks", "expected", "log evidence", "passes", "largest step",
    "smallest pivot",
)  # fmt: skip


@app.command(epilog=example("model", "model --steps 50 --json"))
def model(
    *,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="How many of the latest steps.")] = 10,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Show the model's settings and its latest learning steps.

    Clicks far from the expected ones, step after step, mean that the click rate drifts or that outcomes are
    reported wrongly.
    """
    with opened_store(database) as store:
        record = store.models.get()
        latest = store.learning.latest_step(record.model_id)
        rows = store.learning.model_log(record.model_id, limit=steps)
        schema = store.models.context(record.model_id)
    scales = record.settings["scales"]
    if as_json:
        print_json(
            {
                "model": record.name,
                "step": latest,
                "encoder": record.encoder_fingerprint,
                "components": record.settings.get("components"),
                "scales": scales,
                "log": [asdict(row) for row in rows],
            }
        )
        return
    print_fields(
        {
            "model": record.name,
            "learning step": f"{latest:,}",
            "encoder": record.encoder_fingerprint or "none yet",
            "components": record.settings.get("components", "none yet"),
            "context slots": f"{len(schema.slots)} of 16",
            "prior scales": ", ".join(f"{name} {value:g}" for name, value in scales.items()),
        }
    )
    if rows:
        print_table(
            COLUMNS,
            [
                _row(row.step, row.kind, f"{row.logged_at:%Y-%m-%d %H:%M:%S}", row.n_rows, row.info)
                for row in rows
            ],
            n_words=0,
        )


def _row(step: int, kind: str, at: str, n_rows: int, info: Mapping[str, Any]) -> tuple[str, ...]:
    def shown(name: str, form: str) -> str:
        return format(info[name], form) if name in info else ""

    return (
        f"{step:,}",
        kind,
        at,
        f"{n_rows:,}" if kind == "batch" else "",
        shown("clicks", ",.0f"),
        shown("expected_clicks", ",.1f"),
        shown("log_evidence", ",.1f"),
        shown("passes", ".0f"),
        shown("largest_step", ".1e"),
        shown("smallest_pivot", ".3g"),
    )
