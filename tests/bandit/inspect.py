"""The one way in which tests look inside an engine: what it is made of has no public name.

A test looks inside where nothing outside can tell, as for the posterior's numbers, and nowhere else.
"""

import threading
from collections.abc import Callable, Sized
from datetime import datetime
from typing import Any

from sqlalchemy import Engine as SqlEngine

from bandit import Engine
from bandit.features.content_pca import Components
from bandit.learning.learner import Learner
from bandit.learning.replica import PosteriorReplica
from bandit.learning.workers import Background
from bandit.model.model import Model
from bandit.serving.selector import Selector
from storage import Store
from storage.database.group_commit import GroupCommit
from storage.database.session import Database
from storage.database.write_behind import WriteBehindQueue


def store_of(engine: Engine) -> Store:
    """Return the engine's database."""
    return engine._store


def model_of(engine: Engine) -> Model:
    """Return what the engine knows of its campaigns, contents and contexts."""
    return engine._model


def learner_of(engine: Engine) -> Learner:
    """Return what makes the engine's steps."""
    return engine._learner


def replica_of(engine: Engine) -> PosteriorReplica:
    """Return the engine's posterior."""
    return engine._learner.replica


def selector_of(engine: Engine) -> Selector:
    """Return what answers the engine's requests."""
    return engine._selector


def background_of(engine: Engine) -> Background:
    """Return the engine's threads."""
    return engine._background


def lock_of(engine: Engine) -> threading.RLock:  # type: ignore[valid-type]  a function, to typeshed of 3.11
    """Return the lock under which the engine learns."""
    return engine._lock


def clock_of(engine: Engine) -> Callable[[], datetime]:
    """Return the engine's clock."""
    return engine._clock


def database_of(store: Store) -> Database:
    """Return the connections of a store."""
    return store._database


def follow_at_once(engine: Engine) -> None:
    """Let the next request see what other processes have changed, as if a second had passed."""
    engine._selector._followed_at -= 1.0


def components_of(engine: Engine) -> Components:
    """Return the content components that the engine uses."""
    return engine._model._contents.components_in_use()


def connection_pool_of(database: Database) -> SqlEngine:
    """Return the connections through which a database is written."""
    return database._for_writing


def queue_of(group_commit: GroupCommit[Any, Any]) -> Sized:
    """Return the calls that wait for the next group."""
    return group_commit._queue


def is_led(group_commit: GroupCommit[Any, Any]) -> bool:
    """Return whether a thread is doing a group."""
    return group_commit._is_led


def waiting_of(queue: WriteBehindQueue[Any]) -> list[str]:
    """Return the keys of rows that are not written yet."""
    return list(queue._waiting)


def n_programs(compiled: Any) -> int:
    """Return how many programs a jitted function has."""
    n: int = compiled._cache_size()
    return n
