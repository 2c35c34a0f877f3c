"""Notifications: on PostgreSQL a learning step tells those who listen that it is there, at its commit."""

from typing import Any, Final, final

import psycopg
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from storage.database.error_translation import translate
from storage.database.session import Database

CHANNEL: Final = "creative_bandit_steps"
TELL: Final = select(func.pg_notify(CHANNEL, bindparam("model")))


@final
class Notifications:
    """The topic `store.notices`: a connection that only listens. One thread at a time waits on it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def are_given(self) -> bool:
        """Whether this database tells; SQLite does not."""
        return self._database.dialect == "postgresql"

    def wait(self, model_id: int, timeout_s: float) -> bool:
        """Wait until a step of a model is committed; those between two calls are not missed.

        Args:
            model_id: The model.
            timeout_s: At most so long, in seconds.

        Returns:
            Whether one was.

        Raises:
            StorageError: The connection failed; the next call makes another one.
        """
        try:
            if self._connection is None:
                self._connection = self._database.connect_to_listen(CHANNEL)
            notices = list(self._connection.notifies(timeout=timeout_s, stop_after=1))
        except (psycopg.Error, SQLAlchemyError) as error:
            self.close()
            raise translate(error, self._database.display_url) from error
        return any(notice.payload == str(model_id) for notice in notices)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def tell(connection: Connection, model_id: int) -> None:
    """Tell those who listen of a step, when the transaction commits."""
    if connection.dialect.name == "postgresql":
        connection.execute(TELL, {"model": str(model_id)})
