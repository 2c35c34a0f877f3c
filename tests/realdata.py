"""Where the real data are; the project runs without them."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; its absence fails in CI and skips elsewhere."""
    named = os.environ.get("CREATIVE_BANDIT_DATA")
    folder = Path(named) if named else Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"no real data at {folder}; set CREATIVE_BANDIT_DATA to its folder"
        )
    return folder
