"""The doctor finds what is wrong, and changes nothing."""

import json
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.bandit.cli.conftest import TINY, Answer, Run
from tests.storage.sql import execute


def checks(answer: Answer) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(answer.out)["checks"]}


def test_all_is_well(run: Run, ads: Path) -> None:
    run("select", "spring-sale", "-c", "device=mobile", "-c", "age=3")
    answer = run("doctor", ads, "--json")
    found = checks(answer)
    assert answer.code == 0
    assert {check["state"] for check in found.values()} == {"ok"}
    assert found["Python"]["detail"].startswith(platform.python_version())
    assert found["jax"]["detail"] == version("jax")
    assert found["encoder"]["detail"].startswith(str(TINY))
    assert found["database"]["detail"].startswith(f"sqlite:///{ads} has the newest schema, 0")
    assert found["context fields"]["detail"] == "2 known"
    lines = [line.split() for line in run("doctor").out.splitlines()]
    assert ["ok", "jax", version("jax")] in lines


def test_no_database_yet(run: Run, tmp_path: Path) -> None:
    answer = run("doctor", "--json")
    assert answer.code == 0
    assert checks(answer)["database"]["state"] == "note"
    assert "sqlite:///ads.db is not there yet" in checks(answer)["database"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(run: Run) -> None:
    answer = run("doctor", "nowhere/ads.db", "--json")
    assert answer.code == 1
    assert checks(answer)["database"]["detail"].startswith(
        "the folder of sqlite:///nowhere/ads.db does not exist"
    )


def test_databases_that_cannot_be_used(run: Run, ads: Path) -> None:
    execute(f"sqlite:///{ads}", "UPDATE creative_bandit_version SET version_num = '9999'")
    answer = run("doctor", ads, "--json")
    assert answer.code == 1
    assert "its schema is 9999" in checks(answer)["database"]["detail"]
    execute(f"sqlite:///{ads}", "DELETE FROM creative_bandit_version")
    answer = run("doctor", ads, "--json")
    assert answer.code == 1
    assert f"creative-bandit storage upgrade sqlite:///{ads}" in checks(answer)["database"]["detail"]
    answer = run("doctor", "postgresql://ann:secret@127.0.0.1:1/ads", "--json")
    assert answer.code == 1
    assert "ann:***@127.0.0.1:1/ads does not answer" in checks(answer)["database"]["detail"]
    assert "secret" not in answer.out


def test_no_encoder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", "nowhere")
    answer = run("doctor", "--json")
    assert answer.code == 1
    assert checks(answer)["encoder"]["state"] == "bad"
    assert "nowhere is not a folder" in checks(answer)["encoder"]["detail"]


def test_the_linter_of_the_same_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "bandit-1.8.3.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: bandit\nVersion: 1.8.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    answer = run("doctor", "--json")
    assert answer.code == 1
    assert "the linter called bandit (1.8.3)" in checks(answer)["name clash"]["detail"]
    assert "pip uninstall bandit" in checks(answer)["name clash"]["detail"]


def test_context_fields_without_a_slot(run: Run, ads: Path) -> None:
    fields = [f"field{number:02}" for number in range(18)]
    run("select", "spring-sale", *(word for name in fields for word in ("-c", f"{name}=true")))
    before = sqlite3.connect(ads).execute("SELECT count(*) FROM context_fields").fetchone()
    answer = run("doctor", ads, "--json")
    assert before == (18,)
    assert answer.code == 0
    assert checks(answer)["context fields"]["state"] == "note"
    assert "18 known; no slot was left for field16, field17" in checks(answer)["context fields"]["detail"]
