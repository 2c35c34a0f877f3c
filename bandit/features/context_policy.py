"""Context policy: which fields of a context are kept, hashed or dropped before anything else sees them.

A hashed value is a keyed hash (BLAKE2b under a random secret of the database) of field and value, as text:
equal values stay equal, so levels can be learnt and decisions repeated. Whoever sees contexts, exports or
logs alone can neither read nor guess values. Whoever has the whole database has the secret too, and can try
guesses: short lists of possible values (ages, post codes) need "drop".
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Literal

from bandit.errors import InvalidSettingError
from bandit.features.context import KINDS, LONGEST_NAME, LONGEST_VALUE
from bandit.types import HistoryRow, Request
from storage import ContextRecord

Policy = Literal["keep", "hash", "drop"]

POLICIES = ("keep", "hash", "drop")
SECRET_BYTES = 32
HASH_BYTES = 12  # 96 bits: among a billion values two are alike with a probability of 10⁻¹¹
HASHED = re.compile(rf"hash:[0-9a-f]{{{2 * HASH_BYTES}}}")


def check_policy(policy: Mapping[str, str], schema: ContextRecord) -> None:
    """Check a change of the policy.

    Args:
        policy: keep, hash or drop by field.
        schema: What is known of the fields.

    Raises:
        InvalidSettingError: Names the field, what was expected and what came.
    """
    if not isinstance(policy, Mapping):
        raise InvalidSettingError(
            f"expected the context policy to be a mapping of fields, got {type(policy).__name__}"
        )
    for name, how in policy.items():
        is_name = isinstance(name, str) and 0 < len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
        if not is_name or "\0" in name:
            raise InvalidSettingError(
                f"expected names of context fields to be strings of 1 to {LONGEST_NAME} bytes, "
                f"got {name!r:.80}"
            )
        if how not in POLICIES:
            raise InvalidSettingError(
                f"context field {name!r}: expected 'keep', 'hash' or 'drop', got {how!r:.80}"
            )
        kind = schema.fields.get(name, "string")
        if how == "hash" and kind != "string":
            raise InvalidSettingError(
                f"context field {name!r} is known with {kind} values, and a hash is text; drop it, or send "
                "it under another name"
            )


def new_secret() -> str:
    """Return a secret for a database that has none."""
    return token_hex(SECRET_BYTES)


def without_private(requests: Sequence[Request], settings: Mapping[str, Any]) -> Sequence[Request]:
    """Return requests as the model's policy lets them be seen."""
    if not settings.get("context_policy"):
        return requests
    return [replace(request, context=allowed(request.context, settings)) for request in requests]


def rows_without_private(rows: Sequence[HistoryRow], settings: Mapping[str, Any]) -> Sequence[HistoryRow]:
    """Return rows of history likewise."""
    if not settings.get("context_policy"):
        return rows
    return [replace(row, context=allowed(row.context, settings)) for row in rows]


def allowed(context: Any, settings: Mapping[str, Any]) -> Any:
    """Return a context as the model's policy lets it be seen; what is no mapping stays as it came.

    Example:
        >>> settings = {"context_policy": {"ip": "drop", "user": "hash"}, "context_secret": "00" * 32}
        >>> allowed({"ip": "10.0.0.1", "user": "ann", "device": "mobile"}, settings)
        {'user': 'hash:ceb55cb0050159be1f688b55', 'device': 'mobile'}
    """
    policy = settings.get("context_policy")
    if not policy or not isinstance(context, Mapping):
        return context
    secret = bytes.fromhex(settings["context_secret"])
    return {
        name: _hashed(name, value, secret) if policy.get(name) == "hash" else value
        for name, value in context.items()
        if policy.get(name) != "drop"
    }


def _hashed(name: str, value: Any, secret: bytes) -> Any:
    """Return the keyed hash of a value; what could not be in a context stays, for the check to refuse."""
    kind = KINDS.get(type(value))
    if kind is None or (kind == "string" and HASHED.fullmatch(value)):  # a hash, as of an imported log
        return value
    if kind == "string" and len(value) > LONGEST_VALUE:
        return value
    if kind == "number":
        if not abs(value) < 2**63:  # NaN fails too
            return value
        value = int(value) if math.floor(value) == value else value  # 1 and 1.0 are the same number
    message = json.dumps([name, value])
    digest = blake2b(message.encode(), key=secret, digest_size=HASH_BYTES).hexdigest()
    return f"hash:{digest}"
