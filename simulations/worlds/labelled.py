"""Tables with labels as bandits: each row is a request, each label an arm, and the right one is a click.

The file is an .npz (`numpy.savez`) of two arrays: X, numbers [rows, features], and y, a label for each row.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bandit.errors import listed
from simulations.errors import SimulationError

LARGEST_Z = 4.0  # standard deviations, as the engine's contexts have
LARGEST_DIM = 1_600  # weights of the engine's model; its programs take minutes to compile beyond


class LabelError(SimulationError, ValueError):
    """A table with labels that cannot be played; names all that is wrong with it."""


class Labelled(NamedTuple):
    """A table, ready to be played.

    Attributes:
        features: x, columns standardised and cut at ±4; those that never vary are left out.
        label: index of each row's label.
        labels: their names, in order.
    """

    features: Float[np.ndarray, "rows columns"]
    label: Int[np.ndarray, "rows"]
    labels: tuple[str, ...]


def read_labelled(path: Path) -> Labelled:
    """Read a table with labels.

    Raises:
        LabelError: it is no .npz, an array is missing or cannot be used: all is named.
        FileNotFoundError: there is no such file.
    """
    table, label = _arrays(path)
    problems = []
    if table.ndim != 2 or 0 in table.shape:
        problems.append(f"expected X to be [rows, features], got the shape {table.shape}")
    elif table.dtype.kind not in "biuf":
        problems.append(f"expected X to be numbers, got {table.dtype}")
    elif n_bad := int((~np.isfinite(table)).any(axis=1).sum()):
        problems.append(f"{n_bad:,} rows of X have a number that is not finite")
    if label.ndim != 1 or label.dtype.kind not in "biufUS":
        problems.append(f"expected y to be a label a row, got {label.dtype} of shape {label.shape}")
    elif label.dtype.kind == "f" and not np.isfinite(label).all():
        problems.append(f"{int((~np.isfinite(label)).sum()):,} labels are not finite")
    elif len(np.unique(label)) < 2:
        problems.append(f"expected at least 2 labels in y, got {len(np.unique(label))}")
    if table.ndim > 0 and label.ndim > 0 and len(table) != len(label):
        problems.append(f"X has {len(table):,} rows and y has {len(label):,}")
    if problems:
        raise LabelError(f"{path}: nothing was played{listed(problems)}")
    names, index = np.unique(label, return_inverse=True)
    labelled = Labelled(_standardised(table.astype(float)), index, tuple(map(str, names)))
    if (dim := dim_of(labelled)) > LARGEST_DIM:
        raise LabelError(
            f"{path}: {len(names)} labels and {labelled.features.shape[1]} columns that vary make a model of "
            f"{dim:,} weights, at most {LARGEST_DIM:,} can be played; take fewer columns"
        )
    return labelled


def dim_of(labelled: Labelled) -> int:
    """Return the width of φ: 1, x, and [1, x] of each label."""
    slots = 1 + labelled.features.shape[1]
    return slots + len(labelled.labels) * slots


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y as they are in the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            there = file.files
            if {"X", "y"} <= set(there):
                return file["X"], file["y"]
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise LabelError(f"{path}: expected an .npz with numbers X and labels y: {error}") from error
    missing = ", ".join(name for name in ("X", "y") if name not in there)
    raise LabelError(f"{path}: these arrays are missing: {missing}; it has {', '.join(there) or 'none'}")


def _standardised(table: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows columns"]:
    sd = table.std(axis=0)
    varies = sd > 1e-12 * np.maximum(np.abs(table).max(axis=0), 1e-300)
    table = (table[:, varies] - table[:, varies].mean(axis=0)) / sd[varies]
    return np.clip(table, -LARGEST_Z, LARGEST_Z)
