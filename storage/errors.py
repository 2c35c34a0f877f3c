"""Everything that the storage package raises on purpose: one root, leaves that also fit a builtin."""

from typing import Final


class StorageError(Exception):
    """The root: catch this to catch whatever the storage package reports."""


class InvalidUrlError(StorageError, ValueError):
    """The database's URL or path cannot be understood."""


class DatabaseNotFoundError(StorageError, FileNotFoundError):
    """There is no database at this place, and none was to be created."""


class DatabasePathError(StorageError, OSError):
    """The path of an SQLite file cannot be used: its folder is missing, or it is a folder itself."""


class DatabaseReadOnlyError(StorageError, PermissionError):
    """The database can be read but not written."""


class DatabaseHeldError(StorageError, TimeoutError):
    """Another process kept the database locked for longer than we wait."""


class DatabaseDamagedError(StorageError, RuntimeError):
    """The database's file, or a row in it, is damaged."""


class DatabaseFailedError(StorageError, RuntimeError):
    """The database refused a statement for a reason that has no error of its own here."""


class NotADatabaseError(StorageError, ValueError):
    """The file is not an SQLite database."""


class ForeignDatabaseError(StorageError, ValueError):
    """The database holds tables that are not ours."""


class SchemaOlderError(StorageError, RuntimeError):
    """The database was made by an older version and must be upgraded first."""


class SchemaNewerError(StorageError, RuntimeError):
    """The database was made by a newer version than this one."""


class ServerUnreachableError(StorageError, ConnectionError):
    """The PostgreSQL server does not answer, or refuses us."""


class InvalidIdError(StorageError, ValueError):
    """An id is not 1 to 64 printable ASCII characters."""


class InvalidValueError(StorageError, ValueError):
    """A value cannot be stored: out of range, not finite, or text that holds a NUL."""


class InvalidLimitsError(StorageError, ValueError):
    """Floors and caps of creatives that cannot be kept."""


class NaiveTimeError(StorageError, ValueError):
    """A time without a time zone."""


class UnknownModelError(StorageError, LookupError):
    """No model has this id."""


class UnknownCampaignError(StorageError, LookupError):
    """No campaign has this name."""


class UnknownCreativeError(StorageError, LookupError):
    """The campaign has no creative with this id."""


class UnknownDecisionError(StorageError, LookupError):
    """No decision has this id."""


class UnknownOutcomeError(StorageError, LookupError):
    """What is to be corrected was never reported."""


class UnknownContextFieldError(StorageError, LookupError):
    """The model has not seen this context field."""


class DuplicateCampaignError(StorageError, ValueError):
    """A campaign of this name exists."""


class DuplicateCreativeError(StorageError, ValueError):
    """The campaign has creatives of these ids, or an id is given twice."""


class RetiredCreativeError(StorageError, ValueError):
    """A retired creative stays retired."""


class ContextKindError(StorageError, ValueError):
    """A context field is known with another kind of values."""


class DecisionConflictError(StorageError, ValueError):
    """A decision id is taken by another request."""


class SetupConflictError(StorageError, ValueError):
    """What decisions were made with does not fit to what is here."""


class BackupError(StorageError, ValueError):
    """A database that cannot be copied to the place given."""


class BacklogLostError(StorageError, RuntimeError):
    """Decisions that were answered before their commit (durability "relaxed") could not be stored."""


class EncoderSwappedError(StorageError, RuntimeError):
    """The database's encoder was swapped while texts were encoded by the one before."""


class LeaseLostError(StorageError, RuntimeError):
    """Another learner holds the model's lease."""


class StepConflictError(StorageError, RuntimeError):
    """A learning step does not follow the newest one, or its decisions are not there to be learnt."""


# What the database itself reports: it concerns whoever uses it, whatever is asked.
DATABASE_ERRORS: Final = (
    DatabaseDamagedError,
    DatabaseFailedError,
    DatabaseHeldError,
    DatabasePathError,
    DatabaseReadOnlyError,
    NotADatabaseError,
    ServerUnreachableError,
)
