"""`storage upgrade`, `storage check`."""

from dataclasses import asdict

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import DEFAULT_DATABASE, AsJson, DatabaseArgument, example, group, show_help
from bandit.cli.printing import counted, print_json, print_line, print_table

app = group(callback=show_help, invoke_without_command=True)

UPGRADE_EXAMPLE = example("storage upgrade ads.db", "storage upgrade postgresql://ann@db.example/ads")


@app.command("upgrade", epilog=UPGRADE_EXAMPLE)
def upgrade_schema(url: DatabaseArgument = DEFAULT_DATABASE) -> None:
    """Bring a database to the newest schema, in one transaction; make a copy first."""
    from storage import upgrade

    before = upgrade(url)
    if before.state == "current":
        print_line(f"{before.place} has the newest schema already ({before.head})")
    else:
        print_line(f"upgraded {before.place} from schema {before.revision or 'none'} to {before.head}")


@app.command(epilog=example("storage check ads.db", "storage check ads.db --json"))
def check(url: DatabaseArgument = DEFAULT_DATABASE, *, as_json: AsJson = False) -> None:
    """Look for what disagrees or lacks its partner; exits 1 when something is wrong."""
    with opened_store(url) as store:
        findings = store.check()
        place = store.place
    if as_json:
        print_json({"database": place, "findings": [asdict(finding) for finding in findings]})
    elif findings:
        rows = [(finding.check, finding.subject, finding.message) for finding in findings]
        print_table(("check", "where", "what"), rows, n_words=3)
        print_line(f"{counted(len(findings), 'finding')} in {place}")
    else:
        print_line(f"{place} is sound")
    if findings:
        raise typer.Exit(1)
