"""The checks of what comes in; inside the package nothing is checked again."""

import math
import re
from collections.abc import Iterable
from typing import Final

from storage.errors import InvalidIdError, InvalidValueError
from storage.records import NewDecision, NewOutcome

DECISION_ID: Final = re.compile(r"[\x20-\x7e]{1,64}")
MAX_INTEGER: Final = 2**63 - 1
# Characters of a name: it is part of a key, and PostgreSQL limits keys to 2,700 bytes.
LONGEST_NAME: Final = 200
NO_CLICK_KEY: Final = "no-click"
CORRECTION_KEY: Final = "corrects:"  # what a correction's key begins with


def check_decision_ids(decision_ids: Iterable[str]) -> None:
    """Refuse an id that is not 1 to 64 printable ASCII characters.

    Raises:
        InvalidIdError: Names the first that is wrong.
    """
    is_valid = DECISION_ID.fullmatch
    for decision_id in decision_ids:
        if not isinstance(decision_id, str) or not is_valid(decision_id):
            raise InvalidIdError(
                f"a decision id is a string of 1 to 64 printable ASCII characters, got {decision_id!r:.80}; "
                "leave it out to get one made"
            )


def check_text(text: str, what: str, *, is_empty_allowed: bool = False, longest: int | None = None) -> None:
    """Refuse a string that a database cannot store.

    Args:
        text: The string.
        what: How to name it in the error.
        is_empty_allowed: Whether "" is fine.
        longest: How many characters it may have; None is any number.

    Raises:
        InvalidValueError: It is no string, empty, too long, or holds a NUL or half of a surrogate pair.
    """
    if not isinstance(text, str) or not (text or is_empty_allowed):
        raise InvalidValueError(f"{what} must be a string that is not empty, got {text!r:.80}")
    if longest is not None and len(text) > longest:
        raise InvalidValueError(f"{what} has {len(text):,} characters; at most {longest:,} are allowed")
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise InvalidValueError(f"{what} holds a NUL or broken Unicode, which cannot be stored: {text!r:.80}")


def check_integer(value: int, what: str) -> None:
    """Refuse a whole number that has more than 63 bits, or is negative.

    Raises:
        InvalidValueError: Names the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise InvalidValueError(f"{what} must be a whole number from 0 to 2**63 - 1, got {value!r}")


def check_decision(new: NewDecision) -> None:
    """Refuse a decision whose probabilities or candidates cannot be right.

    Raises:
        InvalidValueError: Names the decision and the field.
    """
    what = f"decision {new.decision_id!r}"
    if new.creative_id not in new.candidate_creative_ids:
        raise InvalidValueError(f"{what}: creative {new.creative_id} is none of its candidates")
    if len(new.propensities) != len(new.candidate_creative_ids):
        raise InvalidValueError(
            f"{what}: expected {len(new.candidate_creative_ids)} propensities, one for each candidate, "
            f"got {len(new.propensities)}"
        )
    if not 0 < new.propensity <= 1:  # NaN fails too
        raise InvalidValueError(f"{what}: propensity must be above 0 and at most 1, got {new.propensity!r}")
    if new.list_propensity is not None and not 0 < new.list_propensity <= 1:
        raise InvalidValueError(
            f"{what}: list_propensity must be above 0 and at most 1, got {new.list_propensity!r}"
        )
    if not all(0 <= share <= 1 for share in new.propensities):
        raise InvalidValueError(f"{what}: propensities must lie in 0 to 1, got {new.propensities!r}")
    for name, number in (("horizon", new.horizon), ("kappa", new.kappa)):
        if number is not None and not math.isfinite(number):
            raise InvalidValueError(f"{what}: {name} must be finite, got {number!r}")
    if new.request_id is not None:
        check_text(new.request_id, f"{what}: request_id", longest=LONGEST_NAME)


def check_outcome(new: NewOutcome) -> None:
    """Refuse a report whose kind, value or key is wrong.

    Raises:
        InvalidValueError: Names the decision and the field.
    """
    what = f"outcome of decision {new.decision_id!r}"
    if new.kind not in ("click", "conversion"):
        raise InvalidValueError(f"{what}: kind must be 'click' or 'conversion', got {new.kind!r}")
    if not math.isfinite(new.value) or (new.kind == "click" and new.value not in (0, 1)):
        expected = "0 or 1" if new.kind == "click" else "a finite number"
        raise InvalidValueError(f"{what}: the value of a {new.kind} is {expected}, got {new.value!r}")
    check_text(new.key, f"{what}: key", is_empty_allowed=True, longest=LONGEST_NAME)
    ours = (NO_CLICK_KEY, CORRECTION_KEY) if new.kind == "click" else (CORRECTION_KEY,)
    if new.key.startswith(ours):
        raise InvalidValueError(
            f"{what}: keys that begin with {' or '.join(map(repr, ours))} are ours, got {new.key!r}; "
            "choose another"
        )
    if not new.valid and new.kind == "click" and not new.value:
        raise InvalidValueError(f"{what}: only a click can be invalid, not the lack of one")
