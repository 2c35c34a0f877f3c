"""What a stopped tuning has done so far: one file beside the folder to be, replaced after every epoch."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from encoders.errors import TuningError

from .campaigns import PastCampaign
from .fitting import Progress
from .head import Head
from .model import Tunable
from .parameters import Trained
from .report import Epoch
from .training import Stage


class Unfinished(NamedTuple):
    """Hold all that the next epoch depends on.

    Args:
        notes: What is said in JSON.
        arrays: Lists of arrays by name: the leaves of what trains, of its best, of the optimiser's state.
    """

    notes: dict[str, Any]
    arrays: Mapping[str, Sequence[Array | np.ndarray]]


def place_of(out: Path) -> Path:
    """Return where the unfinished tuning of a folder is kept."""
    return out.with_name(f"{out.name}.unfinished")


def write_unfinished(path: Path, task: Mapping[str, str], unfinished: Unfinished) -> None:
    """Replace what was kept, in one step: whenever the process is killed, a whole epoch is there.

    Args:
        path: See `place_of`.
        task: Hashes of what the tuning is of, by name; see `hashed`.
        unfinished: What is kept.

    Raises:
        TuningError: It cannot be written; what was kept before still is.
    """
    tensors = {
        f"{name}.{index}": np.asarray(leaf)
        for name, leaves in unfinished.arrays.items()
        for index, leaf in enumerate(leaves)
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, draft, {"task": json.dumps(dict(task)), "notes": json.dumps(unfinished.notes)})
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except Exception as error:  # safetensors raises a kind of its own when the disk is full
        draft.unlink(missing_ok=True)
        kept = "; the epochs before are kept there" if path.exists() else ""
        raise TuningError(f"{path} cannot be written: {error}{kept}") from error


def read_unfinished(path: Path, task: Mapping[str, str]) -> Unfinished | None:
    """Read what was kept of the same tuning; None when there is nothing.

    Args:
        path: See `place_of`.
        task: As for `write_unfinished`.

    Raises:
        TuningError: The file is damaged, or of another tuning; says what differs.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            of, notes = (json.loads(file.metadata()[name]) for name in ("task", "notes"))
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TuningError(f"{path} is no unfinished tuning ({error}); remove it to start anew") from error
    if other := [name for name, value in task.items() if of.get(name) != value]:
        raise TuningError(
            f"{path} is an unfinished tuning with {' and '.join(other)} that differ; repeat its command, "
            "name another folder, or remove it to start anew"
        )
    lengths = Counter(name.partition(".")[0] for name in stored)
    arrays = {name: [stored[f"{name}.{index}"] for index in range(n)] for name, n in lengths.items()}
    return Unfinished(notes, arrays)


def hashed(document: object) -> str:
    """Hash what JSON can say."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def history_of(campaigns: Sequence[PastCampaign]) -> list[object]:
    """Return campaigns as JSON can say them."""
    return [
        [
            each.name,
            [dict(texts) for texts in each.creatives],
            each.impressions.tolist(),
            each.clicks.tolist(),
            None if each.conversions is None else each.conversions.tolist(),
        ]
        for each in campaigns
    ]


def collected(progress: Progress) -> Unfinished:
    """Collect what the next epoch depends on."""
    notes = {
        "scales": [head.scale for head in progress.heads],
        "epochs": [asdict(epoch) for epoch in progress.epochs],
    }
    arrays = {
        "heads": [head.weights for head in progress.heads],
        "tunable": jax.tree.leaves(progress.stage.tunable),
        "best": jax.tree.leaves(progress.best),
        "optimiser": progress.stage.optimiser,
    }
    return Unfinished(notes, arrays)


def restored(unfinished: Unfinished, trained: Trained) -> Progress:
    """Return what was collected."""
    notes, arrays = unfinished
    structure = jax.tree.structure(Tunable(trained.initial, jnp.zeros(())))
    tunable, best = (
        jax.tree.unflatten(structure, map(jnp.asarray, arrays[name])) for name in ("tunable", "best")
    )
    epochs = tuple(Epoch(**epoch) for epoch in notes["epochs"])
    heads = [
        Head(np.asarray(weights), scale)
        for weights, scale in zip(arrays["heads"], notes["scales"], strict=True)
    ]
    return Progress(heads, Stage(epochs[-1].epoch, tunable, arrays["optimiser"]), best, epochs)
