"""`doctor`: what is installed, and can it be used?"""

import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import typer

from bandit.cli.options import DEFAULT_DATABASE, AsJson, DatabaseArgument, example, group
from bandit.cli.printing import print_json, print_table

app = group()

State = Literal["ok", "note", "bad"]
PACKAGES = (
    "creative-bandit", "jax", "jaxlib", "flax", "numpy", "scipy", "tokenizers", "safetensors", "sqlalchemy",
    "alembic", "psycopg", "typer", "rich",
)  # fmt: skip
LINTER = "bandit"  # the security linter, which installs a package of the same name as ours
PYTHONS = ((3, 11), (3, 14))  # from, up to but without; as pyproject.toml says
# The engine's model is the first row of every database that it makes.
MODEL_ID = 1


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: ok, note (works, but worth knowing) or bad (something will not work).
        detail: What was found, and what to do.
    """

    name: str
    state: State
    detail: str


@app.command(epilog=example("doctor", "doctor ads.db", "doctor postgresql://ann@db.example/ads --json"))
def doctor(url: DatabaseArgument = DEFAULT_DATABASE, *, as_json: AsJson = False) -> None:
    """Look at encoder, versions and database; exits 1 when something will not work. Changes nothing."""
    found = [_python(), *_packages(), _linter(), _encoder(), *_database(url)]
    if as_json:
        print_json({"checks": [asdict(diagnosis) for diagnosis in found]})
    else:
        print_table(("state", "what", "found"), [(d.state, d.name, d.detail) for d in found], n_words=3)
    if any(diagnosis.state == "bad" for diagnosis in found):
        raise typer.Exit(1)


def _python() -> Diagnosis:
    low, high = PYTHONS
    is_fine = low <= sys.version_info[:2] < high
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if not is_fine:
        detail += f"; tested with {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    return Diagnosis(name="Python", state="ok" if is_fine else "note", detail=detail)


def _packages() -> Iterator[Diagnosis]:
    for name in PACKAGES:
        found = _version(name)
        detail = found or f"not installed; install it with: pip install {name}"
        yield Diagnosis(name=name, state="ok" if found else "bad", detail=detail)


def _linter() -> Diagnosis:
    found = _version(LINTER)
    if found is None:
        return Diagnosis(name="name clash", state="ok", detail="the linter called bandit is not installed")
    return Diagnosis(
        name="name clash",
        state="bad",
        detail=f"the linter called bandit ({found}) is installed here too, in a package of the same name; "
        f"run: pip uninstall {LINTER} && pip install --force-reinstall --no-deps creative-bandit "
        "(ruff's rules S find what the linter finds)",
    )


def _encoder() -> Diagnosis:
    from encoders.errors import MissingEncoderError
    from encoders.locate import find_default

    try:
        found = find_default(download=False)
    except MissingEncoderError as error:
        return Diagnosis(name="encoder", state="bad", detail=str(error))
    return Diagnosis(name="encoder", state="ok", detail=f"{found.folder} ({found.source})")


def _database(url: str) -> Iterator[Diagnosis]:
    from storage import StorageError, Store, schema_status
    from storage.database.urls import database_url, sqlite_path

    try:
        status = schema_status(url)
        path = sqlite_path(database_url(url))
        if path is not None and not path.absolute().parent.is_dir():
            detail = f"the folder of {status.display_url} does not exist; create it first"
            yield Diagnosis(name="database", state="bad", detail=detail)
            return
        if status.state in ("missing", "empty"):
            detail = f"{status.display_url} is not there yet; `creative-bandit campaign add` makes it"
            yield Diagnosis(name="database", state="note", detail=detail)
            return
        # Says what to do about any other schema than the newest.
        with Store.open(url, create=False) as store:
            yield Diagnosis(
                name="database",
                state="ok",
                detail=f"{store.display_url} has the newest schema, {status.revision}",
            )
            schema = store.models.context(MODEL_ID)
    except StorageError as error:
        yield Diagnosis(name="database", state="bad", detail=str(error))
        return
    without = sorted(set(schema.fields) - {slot.field for slot in schema.slots})
    detail = f"{len(schema.fields)} known"
    if without:
        detail += f"; no slot was left for {', '.join(without)}: logged, but not modelled"
    yield Diagnosis(name="context fields", state="note" if without else "ok", detail=detail)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
