"""`Store`: the one door to a database of ours."""

import os
from datetime import datetime
from types import TracebackType
from typing import Self, final

from storage.database.session import Database, Durability
from storage.database.urls import database_url, sqlite_path
from storage.maintenance.exporter import Exports
from storage.maintenance.importer import Imports
from storage.maintenance.integrity import check
from storage.maintenance.pruning import Pruning
from storage.maintenance.upgrade import prepare
from storage.records import Finding
from storage.topics.campaigns import Campaigns
from storage.topics.decisions import Decisions
from storage.topics.embeddings import Embeddings
from storage.topics.learning import Learning
from storage.topics.leases import Leases
from storage.topics.models import Models
from storage.topics.notifications import Notifications
from storage.topics.outcomes import Outcomes


@final
class Store:
    """An open database; every method of its topics is one transaction, and safe to call from any thread.

    Attributes:
        display_url: The database, as people may see it (no password).
        models: Settings of posteriors, and the schema of contexts.
        campaigns: Campaigns and creatives.
        embeddings: Vectors of texts.
        decisions: What was decided.
        outcomes: What was reported, and settling.
        learning: The learner's rows, log, snapshots, arm states and statistics.
        leases: Who learns a model.
        pruning: Old decisions become counts.
        exports: The decision log for other programs and databases.
        imports: The decision log of another database.
        notices: Waits for the steps of other processes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.display_url = database.display_url
        self.models = Models(database)
        self.campaigns = Campaigns(database)
        self.embeddings = Embeddings(database)
        self.decisions = Decisions(database)
        self.outcomes = Outcomes(database, self.decisions)
        self.learning = Learning(database)
        self.leases = Leases(database)
        self.pruning = Pruning(database)
        self.exports = Exports(database)
        self.imports = Imports(database)
        self.notices = Notifications(database)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        create: bool = True,
        busy_timeout_s: float = 5.0,
        durability: Durability = "normal",
    ) -> Self:
        """Open a database; make it when there is none.

        Args:
            url: A path of an SQLite file, or a URL (`sqlite:///ads.db`, `postgresql://user@host/database`).
            create: Whether a new database may be made; an empty one is filled with our tables.
            busy_timeout_s: How long SQLite waits for another writer, in seconds.
            durability: What a commit survives. "normal": a killed process; on PostgreSQL also a crash of the
                server. "full": a power cut too, as far as the disk keeps its word (SQLite flushes its log at
                every commit). "relaxed": commits of SQLite as with "normal", those of PostgreSQL may be lost
                for some tenths of a second when the server crashes; `decisions.record_later` is for it.

        Returns:
            The store; close it, or use it in a `with` statement.

        Raises:
            InvalidUrlError: The URL cannot be understood.
            DatabaseNotFoundError: There is none, and `create` is false.
            DatabasePathError: The folder does not exist, or the path is a folder.
            DatabaseReadOnlyError: The file or its folder cannot be written.
            DatabaseHeldError: Another process holds it.
            NotADatabaseError: The file is something else.
            ForeignDatabaseError: It holds tables that are not ours.
            SchemaOlderError: It must be upgraded first.
            SchemaNewerError: It was made by a newer version.
            ServerUnreachableError: The server does not answer, or refuses us.
        """
        target = database_url(url)
        database = Database(target, busy_timeout_s=busy_timeout_s, durability=durability)
        try:
            prepare(database, sqlite_path(target), create=create, migrate=False)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def check(self, *, now: datetime | None = None) -> list[Finding]:
        """Compare what is stored twice, and look for rows without their partners.

        Args:
            now: The time, to find what has waited for an hour to be learnt; None does not look for it.

        Returns:
            What is wrong; empty when all is well.
        """
        return self._database.read(lambda connection: check(connection, now))

    def close(self) -> None:
        """Commit what waits for it and close all connections; the store cannot be used afterwards.

        Raises:
            BacklogLostError: Decisions that were answered before their commit could not be stored.
        """
        try:
            self.decisions.backlog.close()
        finally:
            self.notices.close()
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
