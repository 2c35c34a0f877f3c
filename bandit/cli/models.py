"""`model`, `configure`: what the model is, what its last learning steps reported, and how it learns."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from bandit.cli.opening import opened_engine, opened_store
from bandit.cli.options import DEFAULT_DATABASE, AsJson, Database, example, group
from bandit.cli.printing import print_fields, print_json, print_line, print_table

app = group()

COLUMNS = (
    "step", "kind", "learnt at", "decisions", "clicks", "expected", "log evidence", "passes", "clipped",
    "largest step", "smallest pivot",
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
    settings = record.settings
    scales = settings["scales"]
    learnt = rows[0].info.get("scales") if rows else None
    if as_json:
        print_json(
            {
                "model": record.name,
                "step": latest,
                "encoder": record.encoder_fingerprint,
                "components": settings.get("components"),
                "scales": scales,
                "learns_scales": settings.get("learn_scales", True),
                "half_life_days": settings.get("half_life_days"),
                "context_policy": settings.get("context_policy", {}),
                "log": [asdict(row) for row in rows],
            }
        )
        return
    print_fields(
        {
            "model": record.name,
            "learning step": f"{latest:,}",
            "encoder": record.encoder_fingerprint or "none yet",
            "components": settings.get("components", "none yet"),
            "context slots": f"{len(schema.slots)} of 16",
            "prior scales": _shown(scales),
            "learnt scales": _shown(learnt) if learnt else "none yet",
            "scales are": "learnt" if settings.get("learn_scales", True) else "fixed",
            "forgetting": _half_life(settings.get("half_life_days")),
            "context policy": _policy(settings.get("context_policy", {})),
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


@app.command(
    epilog=example(
        "configure --half-life 30",
        "configure --half-life never --scales fixed",
        "configure --context user_id=hash --context ip=drop",
    )
)
def configure(
    *,
    half_life: Annotated[
        str | None,
        typer.Option(metavar="DAYS|never", help="Days after which an outcome counts half of what it did."),
    ] = None,
    scales: Annotated[
        Literal["learnt", "fixed"] | None, typer.Option(help="Whether the prior's scales are learnt.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            "-c",
            metavar="FIELD=keep|hash|drop",
            help="What is done with a context field before anything of it is used or written; repeatable.",
        ),
    ] = None,
    database: Database = DEFAULT_DATABASE,
) -> None:
    """Change how the model learns, and what it may see, from now on."""
    if half_life is None and scales is None and not context:
        raise typer.BadParameter("nothing to change; give --half-life, --scales or --context")
    policy = _parse_policy(context or [])
    days = _parse_half_life(half_life)
    with opened_engine(database) as engine:
        if half_life is not None:
            engine.set_forgetting(days)
            print_line(f"forgetting: {_half_life(days)}")
        if scales is not None:
            engine.set_scale_learning(scales == "learnt")
            print_line(f"scales are {scales}")
        if policy:
            engine.set_context_policy(policy)
            print_line(f"context: {_policy(policy)}")


def _parse_policy(items: Sequence[str]) -> dict[str, Any]:
    policy = {}
    for item in items:
        field, equals, how = item.rpartition("=")
        if not (field and equals and how):
            raise typer.BadParameter(
                f"expected FIELD=keep, hash or drop, such as ip=drop, got {item!r}", param_hint="--context"
            )
        policy[field] = how
    return policy


def _policy(policy: Mapping[str, str]) -> str:
    return ", ".join(f"{field} {how}" for field, how in sorted(policy.items())) or "all kept"


def _parse_half_life(text: str | None) -> float | None:
    if text is None or text == "never":
        return None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"--half-life: expected a number of days above 0, or never, got {text!r}"
        ) from None


def _half_life(days: float | None) -> str:
    return "never" if days is None else f"half in {days:g} days"


def _shown(scales: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in scales.items())


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
        shown("clipped_impressions", ".0f"),
        shown("largest_step", ".1e"),
        shown("smallest_pivot", ".3g"),
    )
