"""`select`, `update`, `settle`, `arms`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit.cli.opening import opened_engine
from bandit.cli.options import (
    DEFAULT_DATABASE,
    AsJson,
    Campaign,
    Database,
    example,
    group,
    parse_context,
    parse_number,
    parse_time,
)
from bandit.cli.printing import percent, print_fields, print_json, print_line, print_table
from bandit.types import ArmReport, Decision, Settled

if TYPE_CHECKING:
    from storage import OutcomeRecord

app = group()

ARM_COLUMNS = (
    "creative", "status", "impressions", "clicks", "pending", "imported", "CTR", "95 % interval", "P(best)",
    "share of 24 h",
)  # fmt: skip


@app.command(
    epilog=example(
        "select spring-sale --context device=mobile --context new=true", "select spring-sale --json"
    )
)
def select(
    campaign: Campaign,
    *,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            "-c",
            metavar="NAME=VALUE",
            help="What is known of the request; repeatable. 3.5 is a number, true a boolean, all else text; "
            "so is what has quotes of its own, as in 'zip=\"02134\"'.",
        ),
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Your own id; asked again, the first decision is returned."),
    ] = None,
    eligible: Annotated[
        list[str] | None, typer.Option(metavar="CREATIVE", help="Choose among these only; repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="CREATIVE", help="Do not choose this one; repeatable.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="What the decisions of one page view share.")
    ] = None,
    places: Annotated[
        int | None,
        typer.Option(metavar="N", help="Choose an ordered list of N different creatives, each with its id."),
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Choose a creative for one impression, or several for one page, and log what was decided."""
    known = parse_context(context or [])
    named: dict[str, Any] = {
        "decision_id": id,
        "eligible": eligible or None,
        "exclude": exclude or (),
        "request_id": request_id,
    }
    with opened_engine(database) as engine:
        if places is not None:
            _print_list(engine.select(campaign, known, k=places, **named), as_json=as_json)
            return
        decision = engine.select(campaign, known, **named)
    if as_json:
        print_json(asdict(decision))
    else:
        print_fields(
            {
                "creative": decision.creative_id,
                "propensity": percent(decision.propensity),
                "decision": decision.id,
            }
        )


def _print_list(decisions: Sequence[Decision], *, as_json: bool) -> None:
    if as_json:
        print_json({"places": [asdict(decision) for decision in decisions]})
        return
    print_table(
        ("place", "creative", "decision", "propensity"),
        [(str(d.place + 1), d.creative_id, d.id, percent(d.propensity)) for d in decisions],
        n_words=3,
    )


@app.command(
    epilog=example(
        "update 019a1c2e-7d10-7abc-8def-0123456789ab --click",
        "update 019a1c2e-7d10-7abc-8def-0123456789ab --conversion --value 12.5 --key order-7",
        "update 019a1c2e-7d10-7abc-8def-0123456789ab --click --invalid",
    )
)
def update(
    decision_id: Annotated[str, typer.Argument(metavar="DECISION", help="The decision's id, from select.")],
    *,
    click: Annotated[bool | None, typer.Option("--click/--no-click", help="Whether it was clicked.")] = None,
    conversion: Annotated[bool, typer.Option("--conversion", help="It led to a purchase.")] = False,
    value: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="What the conversion was worth; 1 by default.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Tells conversions of one decision apart: an order number."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it happened, if not now: ISO 8601 with a zone."),
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="No further report of a click will come.")] = False,
    invalid: Annotated[
        bool, typer.Option("--invalid", help="The click or conversion was reported, and is found invalid.")
    ] = False,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Report what happened after a decision; what is final is learnt at once."""
    if click is None and not conversion and value is None and key is None:
        raise typer.BadParameter("the report says nothing", param_hint="--click / --no-click / --conversion")
    if not conversion and (value is not None or key is not None):
        raise typer.BadParameter("it belongs to a conversion; add --conversion", param_hint="--value / --key")
    worth = 1.0 if value is None else parse_number(value, "--value")
    occurred_at = parse_time(at, "--at")
    with opened_engine(database, is_learning=True) as engine:
        record = engine.update(
            decision_id,
            click=click,
            conversion=conversion or None,
            value=worth,
            key=key or "",
            occurred_at=occurred_at,
            final=final,
            valid=not invalid,
        )
        settled = engine.settle()
    if as_json:
        print_json({**asdict(record), "n_learnt": settled.learnt})
    else:
        print_line(_what_became(record, settled, is_click=click is not None, is_valid=not invalid))


@app.command(epilog=example("settle", "settle --database ads.db"))
def settle(*, database: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> None:
    """Settle the decisions whose attribution window is over, and learn them; made for a timer."""
    with opened_engine(database, is_learning=True) as engine:
        done = engine.settle()
    if as_json:
        print_json(asdict(done))
    else:
        print_line(f"settled {done.settled:,} decisions, learnt {done.learnt:,}")


@app.command(epilog=example("arms spring-sale", "arms spring-sale --json"))
def arms(campaign: Campaign, *, database: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> None:
    """Show what is known of each creative of a campaign."""
    with opened_engine(database) as engine:
        reports = engine.arms(campaign)
    if as_json:
        print_json({"campaign": campaign, "arms": [asdict(report) for report in reports]})
        return
    print_table(
        ARM_COLUMNS,
        [_arm_row(report) for report in reports],
        n_words=2,
    )


def _what_became(record: "OutcomeRecord", settled: Settled, *, is_click: bool, is_valid: bool) -> str:
    if record.status == "repeated":
        return f"already {'reported' if is_valid else 'taken back'}; nothing changed"
    if not is_valid:
        return "taken back: it counts no more"
    if record.status == "late":
        window = "attribution" if is_click else "conversion"
        return f"kept, but its {window} window was over: not learnt"
    if not is_click:
        return "recorded"
    if not record.has_settled:
        return "recorded; it is learnt when its attribution window is over"
    learnt = "recorded and learnt"
    return learnt if settled.learnt else "recorded; the process that learns this database will learn it"


def _arm_row(report: ArmReport) -> tuple[str, ...]:
    imported = f"{report.history_clicks:,} of {report.history_impressions:,}"
    return (
        report.creative_id,
        report.status,
        f"{report.impressions:,}",
        f"{report.clicks:,}",
        f"{report.pending_impressions:,}",
        imported if report.history_impressions else "",
        percent(report.ctr, 2),
        f"{100 * report.ctr_low:.2f} to {percent(report.ctr_high, 2)}",
        percent(report.p_best),
        percent(report.share),
    )
