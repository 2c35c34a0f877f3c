"""`storage upgrade`, `storage check`; more of `storage`: exporting.py, pruning.py."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.cli import exporting, pruning
from bandit.cli.opening import opened_store
from bandit.cli.options import DEFAULT_DATABASE, AsJson, DatabaseArgument, example, group, show_help
from bandit.cli.printing import counted, print_json, print_line, print_table

if TYPE_CHECKING:
    from storage import Finding, Store

app = group(callback=show_help, invoke_without_command=True)
app.add_typer(pruning.app)
app.add_typer(exporting.app)

REPLAYED_WITHIN = 1e-9  # of a posterior standard deviation
REPLAYS = 3  # a learner may write a step between the two readings

UPGRADE_EXAMPLE = example("storage upgrade ads.db", "storage upgrade postgresql://ann@db.example/ads")


@app.command("upgrade", epilog=UPGRADE_EXAMPLE)
def upgrade_schema(url: DatabaseArgument = DEFAULT_DATABASE) -> None:
    """Bring a database to the newest schema, in one transaction; make a copy first."""
    from storage import upgrade

    before = upgrade(url)
    if before.state == "current":
        print_line(f"{before.display_url} has the newest schema already ({before.head})")
    else:
        print_line(f"upgraded {before.display_url} from schema {before.revision or 'none'} to {before.head}")


@app.command(
    epilog=example("storage check ads.db", "storage check ads.db --replay", "storage check ads.db --json")
)
def check(
    url: DatabaseArgument = DEFAULT_DATABASE,
    *,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="Replay the log of learning too, and compare posteriors; takes longer."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for what disagrees or lacks its partner; exits 1 when something is wrong."""
    with opened_store(url) as store:
        findings = store.check(now=datetime.now(UTC))
        if replay:
            findings += _replay(store)
        display_url = store.display_url
    if as_json:
        print_json({"database": display_url, "findings": [asdict(finding) for finding in findings]})
    elif findings:
        rows = [(finding.check, finding.subject, finding.message) for finding in findings]
        print_table(("check", "where", "what"), rows, n_words=3)
        print_line(f"{counted(len(findings), 'finding')} in {display_url}")
    else:
        print_line(f"{display_url} is sound")
    if findings:
        raise typer.Exit(1)


def _replay(store: "Store") -> "list[Finding]":
    from bandit.learning.verify import replay
    from storage import Finding

    for _ in range(REPLAYS):
        found = replay(store, lambda: datetime.now(UTC))
        if found.step == found.replayed_step:
            break
    if found.largest_difference < REPLAYED_WITHIN:  # NaN fails
        return []
    message = f"the log gives another posterior, by {found.largest_difference:.2g} standard deviations"
    return [Finding(check="replay", subject=f"step {found.step}", message=message)]
