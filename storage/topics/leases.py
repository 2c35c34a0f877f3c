"""Leases: who learns a model. Times are the database's own, so that hosts need not agree on one."""

from typing import Final, final

from sqlalchemy import Connection, bindparam, select, update

from storage.database.dialect import database_clock, insert_into
from storage.database.session import Database
from storage.errors import LeaseLostError
from storage.schema.tables import Lease
from storage.validation import check_text

HOLD: Final = (
    select(Lease.number, Lease.owner).where(Lease.model_id == bindparam("model_id")).with_for_update()
)


@final
class Leases:
    """The topic `store.leases`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, model_id: int, owner: str, *, ttl_s: float = 8.0, force: bool = False) -> int | None:
        """Take the lease when nobody holds it, or its holder let it expire.

        Args:
            model_id: The model to learn.
            owner: Who asks, for people to read.
            ttl_s: For how long, in seconds; `renew` begins it anew.
            force: Take it from its holder, who will find it lost and then stops learning.

        Returns:
            The lease's number, larger than any before; None when another one holds it.
        """
        check_text(owner, "the lease's owner")

        def work(connection: Connection) -> int | None:
            statement = insert_into(connection, Lease).values(
                model_id=model_id, number=1, owner=owner, expires_at=database_clock(ttl_s)
            )
            return connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["model_id"],
                    set_={
                        "number": Lease.number + 1,
                        "owner": statement.excluded.owner,
                        "expires_at": statement.excluded.expires_at,
                    },
                    where=None if force else Lease.expires_at <= database_clock(),
                ).returning(Lease.number)
            ).scalar_one_or_none()

        return self._database.write(work)

    def renew(self, model_id: int, number: int, *, ttl_s: float = 8.0) -> bool:
        """Hold the lease for another `ttl_s` seconds.

        Returns:
            Whether it is still ours: nobody took it, even if it had expired.
        """
        return self._set_expiry(model_id, number, ttl_s)

    def release(self, model_id: int, number: int) -> bool:
        """Give the lease back, so that the next learner need not wait.

        Returns:
            Whether it was still ours.
        """
        return self._set_expiry(model_id, number, 0.0)

    def owner(self, model_id: int) -> str | None:
        """Return who holds the lease; None when nobody does."""
        query = select(Lease.owner).where(Lease.model_id == model_id, Lease.expires_at > database_clock())
        return self._database.read(lambda connection: connection.execute(query).scalar_one_or_none())

    def _set_expiry(self, model_id: int, number: int, after_s: float) -> bool:
        statement = (
            update(Lease)
            .where(Lease.model_id == model_id, Lease.number == number)
            .values(expires_at=database_clock(after_s))
        )

        return self._database.write(lambda connection: connection.execute(statement).rowcount == 1)


def hold(connection: Connection, model_id: int, number: int) -> None:
    """Lock the lease's row for the rest of the transaction: nobody else can take it meanwhile.

    Raises:
        LeaseLostError: It is another one's.
    """
    row = connection.execute(HOLD, {"model_id": model_id}).one_or_none()
    if row is None or row.number != number:
        holder = "nobody" if row is None else f"{row.owner!r} (number {row.number})"
        raise LeaseLostError(
            f"the lease of model {model_id} with number {number} is lost, {holder} holds it; "
            "stop learning and acquire it again"
        )
