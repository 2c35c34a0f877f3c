"""`storage prune`: old decisions become counts, or one context field goes."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from bandit.cli.opening import opened_engine, opened_store
from bandit.cli.options import DEFAULT_DATABASE, AsJson, DatabaseArgument, example, group, parse_duration
from bandit.cli.printing import counted, print_json, print_line, print_table, progress_bar

app = group()

ELSEWHERE = (
    "another process learns this database and was asked to refit; run this again in a minute to prune what "
    "it learnt since its last refit"
)


@app.command(
    epilog=example(
        "storage prune ads.db --older-than 90d",
        "storage prune ads.db --older-than 90d --campaign spring-sale",
        "storage prune ads.db --context-field user_id",
    )
)
def prune(
    url: DatabaseArgument = DEFAULT_DATABASE,
    *,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Decisions shown longer ago than this, such as 90d.")
    ] = None,
    campaign: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this campaign only, with --older-than.")
    ] = None,
    context_field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Instead: this field of all contexts, whatever their age."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn old decisions into counts, or remove one context field.

    Statistics, reports by day and refits stay as they were; the decisions and their outcomes are deleted.
    What is not learnt stays, and so does what may still convert. Where decisions have been learnt since the
    last refit, the model is refitted first: a replay of the log begins there.
    """
    if (older_than is None) == (context_field is None):
        raise typer.BadParameter("give either --older-than or --context-field", param_hint="--older-than")
    if context_field is not None:
        if campaign is not None:
            raise typer.BadParameter("a field is removed from all campaigns", param_hint="--campaign")
        _remove_field(url, context_field, as_json=as_json)
        return
    age = timedelta(seconds=parse_duration(older_than or "", "--older-than"))
    _prune(url, age, campaign, as_json=as_json)


def _prune(url: str, age: timedelta, campaign: str | None, *, as_json: bool) -> None:
    from bandit.retention import campaigns_to_prune, needs_refit, prune_campaigns

    with opened_store(url) as store:
        campaigns = campaigns_to_prune(store, older_than=age, now=datetime.now(UTC), campaign=campaign)
        is_elsewhere = needs_refit(store, campaigns) and not _refit(url)
        with progress_bar("decisions") as advance:
            done = prune_campaigns(store, campaigns, advance)
    if as_json:
        print_json({"campaigns": [found._asdict() for found in done], "refit_is_due": is_elsewhere})
        return
    rows = [(found.campaign, f"{found.pruned:,}", f"{found.kept:,}") for found in done]
    print_table(("campaign", "pruned", "as old, kept"), rows)
    if is_elsewhere:
        print_line(ELSEWHERE)


def _remove_field(url: str, field: str, *, as_json: bool) -> None:
    from bandit.retention import remove_context_field

    with opened_store(url) as store, progress_bar("contexts") as advance:
        changed = remove_context_field(store, field, advance)
    is_elsewhere = not _refit(url)
    if as_json:
        print_json({"field": field, "decisions": changed, "refit_is_due": is_elsewhere})
        return
    print_line(f"removed {field!r} from {counted(changed, 'decision')}, and from all counts by context")
    if is_elsewhere:
        print_line("another process learns this database; it refits without the field")


def _refit(url: str) -> bool:
    """Refit the model, or ask the process that learns it to; say whether it was done."""
    from bandit.errors import LearnerElsewhereError

    with opened_engine(url, is_learning=True) as engine:
        try:
            engine.refit()
        except LearnerElsewhereError:
            with opened_store(url) as store:
                store.models.change_settings(store.models.get().model_id, {"refit_due": True})
            return False
    return True
