"""Opening: what a place may be, what is refused, and with which words."""

import multiprocessing
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import storage
from storage import Store
from storage.database.urls import database_url, shown
from tests.storage.conftest import NOW
from tests.storage.sql import execute, fetch

UPGRADE = "creative-bandit storage upgrade"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ads.db", "sqlite:///ads.db"),
        (Path("/data/ads.db"), "sqlite:////data/ads.db"),
        ("sqlite:///ads.db", "sqlite:///ads.db"),
        ("postgres://ann@host/ads", "postgresql+psycopg://ann@host/ads"),
        ("postgresql://ann@host:5433/ads", "postgresql+psycopg://ann@host:5433/ads"),
        ("postgresql+psycopg://host/ads", "postgresql+psycopg://host/ads"),
    ],
)
def test_places(written: str | Path, meant: str) -> None:
    assert str(database_url(written)) == meant


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("", "''"),
        ("a\0b", "holds a NUL"),
        ("mysql://host/ads", "'mysql' are not supported"),
        ("postgresql+psycopg2://host/ads", "'postgresql+psycopg2' are not supported"),
        ("sqlite://", "'sqlite://'"),
        ("sqlite:///:memory:", "memory"),
        ("postgresql://ann:secret@host:port/ads", "begins with postgresql://"),
    ],
)
def test_a_place_that_cannot_be_understood(written: str, named: str) -> None:
    with pytest.raises(storage.InvalidUrlError) as caught:
        Store.open(written)
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://ann:secret@host/ads", "postgresql://host/ads?password=secret&sslpassword=secret"]
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "secret" not in shown(database_url(url))


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("empty_postgres", marks=pytest.mark.postgres)])
def test_a_new_database_is_created_and_current(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    with Store.open(url) as store:
        assert store.check() == []
    assert storage.schema_status(url).state == "current"
    with Store.open(url, create=False):
        pass


def test_a_new_file_uses_write_ahead_logging(sqlite_url: str) -> None:
    Store.open(sqlite_url).close()
    assert fetch(sqlite_url, "PRAGMA journal_mode") == [("wal",)]


def test_nothing_is_created_unasked(tmp_path: Path) -> None:
    path = tmp_path / "ads.db"
    with pytest.raises(storage.DatabaseNotFoundError, match=str(path)):
        Store.open(path, create=False)
    with pytest.raises(storage.DatabaseNotFoundError, match=str(path)):
        storage.upgrade(path)
    assert storage.schema_status(path).state == "missing"
    assert not path.exists()


def test_an_older_schema_names_the_command(sqlite_url: str) -> None:
    Store.open(sqlite_url).close()
    execute(sqlite_url, "DELETE FROM creative_bandit_version")
    status = storage.schema_status(sqlite_url)
    assert (status.state, status.revision) == ("older", None)
    with pytest.raises(storage.SchemaOlderError, match=f"{UPGRADE} {sqlite_url}"):
        Store.open(sqlite_url)


@pytest.mark.parametrize("action", [Store.open, storage.upgrade])
def test_a_newer_schema_is_refused(url: str, action: Callable[[str], object]) -> None:
    Store.open(url).close()
    execute(url, "UPDATE creative_bandit_version SET version_num = '9999'")
    assert storage.schema_status(url).state == "newer"
    with pytest.raises(storage.SchemaNewerError, match="its schema is 9999, this version knows up to 0"):
        action(url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("just some notes, long enough to be taken for a header of a database" * 20)
    with pytest.raises(storage.NotADatabaseError, match=r"notes\.txt is not an SQLite database"):
        Store.open(path)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE visits (page TEXT)")
    with pytest.raises(storage.ForeignDatabaseError, match=r"history\.db holds tables"):
        Store.open(path)
    assert storage.schema_status(path).state == "foreign"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("visits",)]


@pytest.mark.postgres
def test_a_server_is_shared_unless_names_clash(empty_postgres_url: str) -> None:
    execute(empty_postgres_url, "CREATE TABLE visits (page text)", "CREATE TABLE alembic_version (x text)")
    assert storage.schema_status(empty_postgres_url).state == "empty"
    with pytest.raises(storage.DatabaseNotFoundError, match="it has no tables"):
        Store.open(empty_postgres_url, create=False)
    execute(empty_postgres_url, "CREATE TABLE outcomes (x text)")
    with pytest.raises(storage.ForeignDatabaseError, match="did not make"):
        Store.open(empty_postgres_url)
    execute(empty_postgres_url, "DROP TABLE outcomes")
    Store.open(empty_postgres_url).close()
    assert storage.schema_status(empty_postgres_url).state == "current"


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(storage.DatabasePathError, match=f"the folder {tmp_path / 'no'} .* does not exist"):
        Store.open(tmp_path / "no" / "ads.db")
    with pytest.raises(storage.DatabasePathError, match=f"{tmp_path} is a folder"):
        Store.open(tmp_path)


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of an ordinary user, as whom the test runs: root may write everything."""
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    if is_root:
        shutil.chown(folder, "nobody")
        os.seteuid(folder.stat().st_uid)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_read_only_place(ordinary_folder: Path, part: str) -> None:
    path = ordinary_folder / "ads.db"
    Store.open(path).close()
    (path if part == "file" else ordinary_folder).chmod(0o500)
    wrong = path if part == "file" else ordinary_folder
    with pytest.raises(storage.DatabaseReadOnlyError, match=f"{wrong} is read-only"):
        Store.open(path)


def test_a_file_that_becomes_read_only(sqlite_url: str) -> None:
    Store.open(sqlite_url).close()
    path = database_url(sqlite_url).database
    with (
        Store.open(f"sqlite:///file:{path}?mode=ro&uri=true") as store,
        pytest.raises(storage.DatabaseReadOnlyError, match="attempt to write a readonly database"),
    ):
        store.models.get_or_create(seed=1, encoder_fingerprint="a", settings={})


def test_a_file_that_another_process_holds(sqlite_url: str) -> None:
    Store.open(sqlite_url).close()
    holder = sqlite3.connect(str(database_url(sqlite_url).database), isolation_level=None)
    with Store.open(sqlite_url, busy_timeout_s=0.05) as store:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(storage.DatabaseHeldError, match=f"{sqlite_url} is held by another process"):
            store.models.get_or_create(seed=1, encoder_fingerprint="a", settings={})
        assert store.campaigns.all(1) == []  # readers are not blocked
        holder.execute("ROLLBACK")
        assert store.models.get_or_create(seed=1, encoder_fingerprint="a", settings={}).model_id == 1
    holder.close()


def test_a_new_file_that_another_process_holds(sqlite_url: str) -> None:
    holder = sqlite3.connect(str(database_url(sqlite_url).database), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(storage.DatabaseHeldError, match="is held by another process"):
        Store.open(sqlite_url, busy_timeout_s=0.05)
    holder.close()


def test_a_server_that_does_not_answer() -> None:
    url = "postgresql://ann:secret@127.0.0.1:1/ads"
    for action in (Store.open, storage.schema_status, storage.upgrade):
        with pytest.raises(storage.ServerUnreachableError, match=r"ann:\*\*\*@127.0.0.1:1/ads") as caught:
            action(url)
        assert "secret" not in str(caught.value)


@pytest.mark.postgres
def test_a_database_that_the_server_does_not_have(postgres_url: str) -> None:
    with pytest.raises(storage.ServerUnreachableError, match='database "nowhere" does not exist'):
        Store.open(database_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False))


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("empty_postgres", marks=pytest.mark.postgres)])
def test_threads_that_create_it_together(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    barrier, failures = threading.Barrier(4), []

    def create() -> None:
        barrier.wait()
        try:
            Store.open(url).close()
        except storage.StorageError as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert storage.schema_status(url).state == "current"


def test_processes_share_one_file(sqlite_url: str) -> None:
    """Each adds its own campaign and all ask for the same model."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add_campaign, args=(sqlite_url, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with Store.open(sqlite_url) as store:
        assert sorted(campaign.name for campaign in store.campaigns.all(1)) == ["c0", "c1", "c2"]
    assert fetch(sqlite_url, "SELECT count(*) FROM models") == [(1,)]


def _add_campaign(url: str, number: int) -> None:
    with Store.open(url) as store:
        model = store.models.get_or_create(seed=1, encoder_fingerprint="a", settings={})
        store.campaigns.add(model.model_id, f"c{number}", created_at=NOW)
