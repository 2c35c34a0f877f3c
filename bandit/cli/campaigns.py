"""`campaign add`, `campaign pause`, `campaign resume`."""

from typing import Annotated

import typer

from bandit.cli.opening import opened_engine
from bandit.cli.options import (
    DEFAULT_DATABASE,
    Campaign,
    Database,
    example,
    group,
    parse_duration,
    parse_fraction,
    parse_horizon,
    parse_time,
    show_help,
)
from bandit.cli.printing import print_line

app = group(callback=show_help, invoke_without_command=True)


@app.command(
    epilog=example(
        "campaign add spring-sale --horizon 200000 --attribution-window 0",
        "campaign add autumn --ends-at 2026-12-01T00:00:00+00:00",
    )
)
def add(
    campaign: Campaign,
    *,
    horizon: Annotated[
        str,
        typer.Option(
            metavar="N|auto|none",
            help="Impressions it expects in all; auto estimates them from its traffic, none is endless.",
        ),
    ] = "auto",
    attribution_window: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long silence is not yet a no: seconds, or 30m, 2h, 7d. 0 means that every click and "
            "every non-click is reported.",
        ),
    ] = "30m",
    conversion_window: Annotated[
        str, typer.Option(metavar="TIME", help="How long conversions count, in the same form.")
    ] = "7d",
    uniform_share: Annotated[
        str, typer.Option(metavar="FRACTION", help="Share of traffic that all creatives get alike.")
    ] = "0.01",
    control_share: Annotated[
        str,
        typer.Option(
            metavar="FRACTION",
            help="Share of traffic drawn from all creatives alike and logged as control, to compare with.",
        ),
    ] = "0",
    starts_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Its start: ISO 8601 with a zone.")
    ] = None,
    ends_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Its end: ISO 8601 with a zone.")
    ] = None,
    database: Database = DEFAULT_DATABASE,
) -> None:
    """Add a campaign; the database is made when there is none."""
    settings = {
        "attribution_window": parse_duration(attribution_window, "--attribution-window"),
        "conversion_window": parse_duration(conversion_window, "--conversion-window"),
    }
    shares = {
        "uniform_share": parse_fraction(uniform_share, "--uniform-share"),
        "control_share": parse_fraction(control_share, "--control-share"),
    }
    impressions = parse_horizon(horizon)
    start, end = parse_time(starts_at, "--starts-at"), parse_time(ends_at, "--ends-at")
    with opened_engine(database, is_created=True) as engine:
        engine.add_campaign(
            campaign,
            horizon=impressions,
            **settings,
            **shares,
            starts_at=start,
            ends_at=end,
        )
    print_line(f"added campaign {campaign}")


@app.command(epilog=example("campaign pause spring-sale"))
def pause(campaign: Campaign, *, database: Database = DEFAULT_DATABASE) -> None:
    """Stop showing a campaign for now."""
    with opened_engine(database) as engine:
        engine.pause(campaign)
    print_line(f"paused campaign {campaign}")


@app.command(epilog=example("campaign resume spring-sale"))
def resume(campaign: Campaign, *, database: Database = DEFAULT_DATABASE) -> None:
    """Show a paused campaign again."""
    with opened_engine(database) as engine:
        engine.resume(campaign)
    print_line(f"resumed campaign {campaign}")
