"""Where things of the repository lie, for tests of every folder."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TINY = ROOT / "tests" / "encoders" / "tiny-bert"  # a real BERT of a few kilobytes
