"""`creative add`, `creative limit`, `creative pause`, `creative resume`, `creative retire`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bandit.cli.creative_file import read_creatives
from bandit.cli.opening import opened_engine, opened_store
from bandit.cli.options import DEFAULT_DATABASE, Campaign, Database, example, group, parse_fraction, show_help
from bandit.cli.printing import counted, print_line
from bandit.types import Creative

app = group(callback=show_help, invoke_without_command=True)

Floor = Annotated[
    str | None,
    typer.Option(metavar="FRACTION", help="The least of the campaign's traffic that it is to get."),
]
Cap = Annotated[
    str | None, typer.Option(metavar="FRACTION", help="The most of the campaign's traffic that it is to get.")
]
CreativeId = Annotated[str, typer.Argument(metavar="CREATIVE", help="The creative's id.")]


@app.command(
    epilog=example(
        'creative add spring-sale calm --headline "Free returns, always"',
        "creative add spring-sale --csv creatives.csv",
    )
)
def add(
    campaign: Campaign,
    creative: Annotated[
        str | None, typer.Argument(metavar="CREATIVE", help="The creative's id, unless --csv is given.")
    ] = None,
    *,
    headline: Annotated[str | None, typer.Option(metavar="TEXT", help="Its headline.")] = None,
    body: Annotated[str | None, typer.Option(metavar="TEXT", help="Its body.")] = None,
    call_to_action: Annotated[str | None, typer.Option(metavar="TEXT", help="Its call to action.")] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="REFERENCE", help="A reference to its picture; kept, not read.")
    ] = None,
    floor: Floor = None,
    cap: Cap = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Many at once: a CSV in UTF-8 with the column creative, and any of headline, body, "
            "call_to_action, picture, floor and cap. When a line is bad, nothing is added.",
        ),
    ] = None,
    database: Database = DEFAULT_DATABASE,
) -> None:
    """Add a creative, or those of a file; their texts are encoded now."""
    texts = {"headline": headline, "body": body, "call_to_action": call_to_action, "picture": picture}
    given: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
    given |= _limits(floor, cap)
    if (csv is None) == (creative is None) or (csv is not None and given):
        raise typer.BadParameter("give either one creative's id and texts, or --csv", param_hint="CREATIVE")
    if csv is not None:
        with opened_store(database) as store:
            taken = {known.external_id for known in store.campaigns.creatives(campaign)}
        creatives = read_creatives(csv, campaign, taken)
    else:
        creatives = [Creative(creative or "", **given)]
    with opened_engine(database) as engine:
        engine.add_creatives(campaign, creatives)
    what = f"creative {creative}" if csv is None else counted(len(creatives), "creative")
    print_line(f"added {what} to campaign {campaign}")


@app.command(
    epilog=example(
        "creative limit spring-sale calm --floor 0.1", "creative limit spring-sale urgent --cap 0.5"
    )
)
def limit(
    campaign: Campaign,
    creative: CreativeId,
    *,
    floor: Floor = None,
    cap: Cap = None,
    database: Database = DEFAULT_DATABASE,
) -> None:
    """Set the least and the most of a campaign's traffic that a creative is to get."""
    limits = _limits(floor, cap)
    if not limits:
        raise typer.BadParameter("give --floor, --cap or both", param_hint="--floor / --cap")
    with opened_engine(database) as engine:
        engine.set_traffic(campaign, creative, **limits)
    told = " and ".join(f"{name} {value:g}" for name, value in limits.items())
    print_line(f"creative {creative} of campaign {campaign} has {told}")


@app.command(epilog=example("creative pause spring-sale calm"))
def pause(campaign: Campaign, creative: CreativeId, *, database: Database = DEFAULT_DATABASE) -> None:
    """Stop showing a creative for now."""
    with opened_engine(database) as engine:
        engine.pause(campaign, creative)
    print_line(f"paused creative {creative} of campaign {campaign}")


@app.command(epilog=example("creative resume spring-sale calm"))
def resume(campaign: Campaign, creative: CreativeId, *, database: Database = DEFAULT_DATABASE) -> None:
    """Show a paused creative again."""
    with opened_engine(database) as engine:
        engine.resume(campaign, creative)
    print_line(f"resumed creative {creative} of campaign {campaign}")


@app.command(epilog=example("creative retire spring-sale calm"))
def retire(campaign: Campaign, creative: CreativeId, *, database: Database = DEFAULT_DATABASE) -> None:
    """Stop showing a creative for good; its late outcomes still count."""
    with opened_engine(database) as engine:
        engine.retire(campaign, creative)
    print_line(f"retired creative {creative} of campaign {campaign}")


def _limits(floor: str | None, cap: str | None) -> dict[str, float]:
    """Return the limits that are given, by name."""
    given = {"floor": (floor, "--floor"), "cap": (cap, "--cap")}
    return {name: parse_fraction(text, option) for name, (text, option) in given.items() if text is not None}
