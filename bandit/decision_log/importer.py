"""Importing a decision log: read once to see that all of it is good, then written a piece at a time."""

from collections.abc import Callable, Iterator
from itertools import islice

from bandit.errors import ContextError, LogFileError, listed
from bandit.features.context import check_context
from bandit.features.context_policy import allowed
from bandit.model.settings import initial_settings
from storage import ContextRecord, Store
from storage.maintenance.exporter import LoggedDecision, Setup

CHUNK = 1_000  # decisions a transaction


def import_log(
    store: Store,
    setup: Setup,
    read: Callable[[], Iterator[LoggedDecision]],
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[int, int]:
    """Add decisions that are not there, with their outcomes, campaigns and creatives.

    What this database's context policy drops or hashes is dropped or hashed, unless it is a hash already.

    Args:
        store: The database.
        setup: What the decisions were made with.
        read: Gives the decisions, each time from the start.
        progress: Called with the number of decisions that were newly written or found there.

    Returns:
        How many decisions were added, and how many were there.

    Raises:
        LogFileError: Lines are bad, contexts cannot be used, or a decision is there twice; nothing was added.
        StorageError: The database cannot take them; parts before the one that failed stay.
    """
    _check(read(), setup)
    store.models.get_or_create(
        setup.model.name, seed=setup.model.seed, encoder_fingerprint=None, settings=initial_settings()
    )
    target = store.imports.setup(setup)
    settings = store.models.get(setup.model.name).settings
    added = there = 0
    decisions = read()
    while part := list(islice(decisions, CHUNK)):
        private = [logged._replace(context=allowed(logged.context, settings)) for logged in part]
        new = store.imports.decisions(target, private)
        added, there = added + new, there + len(part) - new
        progress(len(part))
    return added, there


def _check(decisions: Iterator[LoggedDecision], setup: Setup) -> None:
    problems, seen = [], set()
    known = ContextRecord(fields=dict(setup.context.fields), slots=(), version=0)
    names = setup.contents().keys()
    for logged in decisions:
        where = f"decision {logged.decision_id!r}"
        if logged.decision_id in seen:
            problems.append(f"{where} is there twice")
        seen.add(logged.decision_id)
        if not {(logged.campaign, name) for name in (logged.creative, *logged.candidates)} <= names:
            problems.append(f"{where}: its campaign or a creative is none of the setup's")
        try:
            if new := check_context(logged.context, known):
                problems.append(f"{where}: context fields that the setup does not know: {', '.join(new)}")
        except ContextError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise LogFileError(f"{len(problems)} bad decisions; nothing was imported{listed(problems)}")
