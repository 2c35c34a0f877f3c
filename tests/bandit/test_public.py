"""What a caller meets can be imported from where it calls: errors, returned types, words of arguments."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_overloads, get_type_hints

import pytest

import bandit
import bandit.errors
from bandit import Creative
from bandit.errors import DecisionConflictError, UnknownCampaignError
from tests.bandit.engines import Engines

RAISES = re.compile(r"\n *Raises:\n(.*?)(?:\n\n|\n *[A-Z]\w+:\n|\Z)", re.DOTALL)
NAMED = re.compile(r"^ *(\w+):", re.MULTILINE)
BUILTIN = {"TypeError", "ValueError"}
OURS = ("bandit", "encoders", "storage")


def calls() -> Iterator[tuple[str, Any]]:
    """Yield every public function and method of what `bandit` offers, and each of its overloads."""
    for name in bandit.__all__:
        for member, value in inspect.getmembers(getattr(bandit, name)):
            call = (
                value.fget
                if isinstance(value, property)
                else inspect.unwrap(getattr(value, "__func__", value))
            )
            if inspect.isfunction(call) and not member.startswith("_"):
                yield from ((f"{name}.{member}", one) for one in [call, *get_overloads(call)])


def raised() -> dict[str, str]:
    """Return each error that a Raises section names, and one call that names it."""
    found: dict[str, str] = {}
    for name, call in calls():
        for section in RAISES.findall(call.__doc__ or ""):
            lines = [line for line in section.splitlines() if line.strip()]
            indent = min(len(line) - len(line.lstrip()) for line in lines)
            for line in lines:
                if len(line) - len(line.lstrip()) == indent and (error := NAMED.match(line)):
                    found[error[1]] = name
    return found


def returned() -> dict[type, str]:
    """Return each class of ours that a call returns, alone or in something, and one such call."""
    found: dict[type, str] = {}

    def note(annotation: Any, name: str) -> None:
        if isinstance(annotation, type) and annotation.__module__.split(".")[0] in OURS:
            found[annotation] = name
        for part in get_args(annotation):
            note(part, name)

    for name, call in calls():
        note(get_type_hints(call).get("return"), name)
    return found


def test_every_error_that_is_named_is_there() -> None:
    errors = raised()
    assert {"UnknownCampaignError", "DecisionConflictError", "MissingEncoderError"} <= set(errors)
    assert len(errors) >= 24
    for name, call in errors.items():
        if name not in BUILTIN:
            assert name in bandit.__all__, f"{call} raises it"
            error = getattr(bandit.errors, name)
            assert getattr(bandit, name) is error
            assert issubclass(error, bandit.BanditError | bandit.StorageError | bandit.EncoderError)


def test_every_class_that_is_returned_is_there() -> None:
    classes = returned()
    assert {"Decision", "OutcomeRecord", "Explanation", "Settled"} <= {one.__name__ for one in classes}
    for one, call in classes.items():
        assert getattr(bandit, one.__name__, None) is one, f"{call} returns {one}"


def test_errors_of_all_packages_come_from_one_place() -> None:
    import encoders.errors
    import storage.errors

    for module in (encoders.errors, storage.errors):
        for name, error in inspect.getmembers(module, inspect.isclass):
            assert getattr(bandit.errors, name) is error
    with pytest.raises(AttributeError, match="no attribute 'UnknownCampainError'"):
        _ = bandit.errors.UnknownCampainError  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from bandit.errors import Store")  # noqa: S102  no error, though storage.errors' package has it


def test_a_caller_catches_what_is_raised(engines: Engines) -> None:
    with engines.open() as engine:
        with pytest.raises(UnknownCampaignError):
            engine.select("sprnig")
        engine.add_campaign("spring", horizon=100)
        engine.add_creatives("spring", [Creative("a", headline="Free returns")])
        engine.select("spring", decision_id="one")
        with pytest.raises(DecisionConflictError):
            engine.select("spring", context={"device": "mobile"}, decision_id="one")
