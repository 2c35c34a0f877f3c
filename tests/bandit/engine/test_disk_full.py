"""A disk without room: told with what to do, nothing answered is lost, and the engine goes on by itself."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from bandit import Engine, Outcome, Request
from bandit.learning.verify import replay
from encoders import TextEncoder
from storage import StorageError, Store
from tests.bandit.engines import Clock, Engines, add_campaign, learnt, play, wait_for
from tests.bandit.inspect import learner_of, lock_of, store_of
from tests.databases import ORDINARY_USER, OwnServer, administer, serving_alone

DISK = 32 * 2**20
ROOM = 2**20
EACH = 20  # decisions a call
GUARD = 1e-9  # of a posterior standard deviation
MOST_CALLS = 2_000
CONTEXT = {"device": "mobile"}
FULL = "disk is full; free some space.*then try again"
FULL_OR_LOST = f"{FULL}|does not answer or refuses us"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, of a few megabytes; only root may make one."""
    folder = Path(tempfile.mkdtemp(prefix="small-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        folder.rmdir()
        pytest.skip(f"no small file system can be mounted: {getattr(error, 'stderr', None) or error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@pytest.fixture
def full_sqlite_url(small_disk: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file on the small disk."""
    return f"sqlite:///{shutil.copy(sqlite_template, small_disk / 'ads.db')}"


@pytest.fixture
def full_postgres_url(small_disk: Path, postgres_template: URL, postgres_server: URL) -> Iterator[str]:
    """A migrated PostgreSQL database whose tables are on the small disk."""
    if os.environ.get("TEST_DATABASE_URL"):
        pytest.skip("the server of TEST_DATABASE_URL may not see the small disk")
    shutil.chown(small_disk, ORDINARY_USER)
    name, template = "full_disk", postgres_template.database
    administer(postgres_server, f"CREATE TABLESPACE {name} LOCATION '{small_disk}'")
    administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template} TABLESPACE {name}")
    try:
        yield postgres_server.set(database=name).render_as_string(hide_password=False)
    finally:
        administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
        administer(postgres_server, f"DROP TABLESPACE {name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "database", ["full_sqlite_url", pytest.param("full_postgres_url", marks=pytest.mark.postgres)]
)
def test_a_full_disk_is_told_and_costs_nothing(
    request: pytest.FixtureRequest, small_disk: Path, database: str, tiny_encoder: TextEncoder, clock: Clock
) -> None:
    engines = Engines(request.getfixturevalue(database), tiny_encoder, clock)
    try:
        fill_and_free(engines, small_disk)
    finally:
        engines.close()


@pytest.mark.slow
@pytest.mark.postgres
def test_a_log_without_room_ends_the_server_and_costs_nothing(
    small_disk: Path, postgres_server: URL, tiny_encoder: TextEncoder, clock: Clock
) -> None:
    """PostgreSQL ends its sessions when its write-ahead log has no room, and may not come back by itself."""
    log = small_disk / "log"
    log.mkdir()
    with serving_alone(log) as server:
        engines = Engines(server.url, tiny_encoder, clock)
        try:
            fill_and_free(engines, small_disk, FULL_OR_LOST, server)
        finally:
            engines.close()


def fill_and_free(engines: Engines, disk: Path, told: str = FULL, server: OwnServer | None = None) -> None:
    """Use the room up, see what is told and kept, make room, and see that all is learnt."""
    engine = engines.open(learn="background")
    add_campaign(engine)
    play(engine, 10)
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - ROOM))

    answered, failed, error = fill(engine)
    assert re.search(told, error)
    assert len(answered) > EACH
    if server is None:  # else nothing is answered now
        with Store.open(engines.url) as other:  # what is there can be read
            assert set(other.decisions.get(answered)) == set(answered)

    filler.unlink()
    wait_for(lambda: is_answered(engine, failed, server), at_most_s=60.0)
    wait_for(lambda: {name for name, _, _ in learnt(engines)} >= {*answered, *failed}, at_most_s=60.0)
    assert store_of(engine).check() == []
    with lock_of(engine):  # a learner is at work
        learner_of(engine).save()
    assert replay(store_of(engine), engines.clock).largest_difference < GUARD


def fill(engine: Engine) -> tuple[list[str], list[str], str]:
    """Select and report until it fails; return what was answered, and what was not, with its error."""
    answered: list[str] = []
    for call in range(MOST_CALLS):
        names = [f"{call}-{i}" for i in range(EACH)]
        try:
            ask(engine, names)
        except StorageError as error:
            return answered, names, str(error)
        answered += names
    raise AssertionError("the disk was never full")


def is_answered(engine: Engine, names: list[str], server: OwnServer | None) -> bool:
    """Ask as a caller does whose server may still be ending its sessions, or recover."""
    if server is not None:
        server.revive()
    try:
        ask(engine, names)
    except StorageError:
        if server is None:
            raise
        return False
    return True


def ask(engine: Engine, names: list[str]) -> None:
    engine.select_many([Request(campaign="spring", context=CONTEXT, decision_id=name) for name in names])
    engine.update_many([Outcome(decision_id=name, click=name.endswith("3")) for name in names])
