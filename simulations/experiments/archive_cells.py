"""An archive's runs as cells: what one policy earned on all tests at one T, played here or elsewhere."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np

from bandit.jax_runtime import double_precision, keep_compiled_programs
from simulations.experiments.archive import Played, play_archive
from simulations.policies.settings import Setting
from simulations.sweep import HERE, Arrays, Workers, code_digest, run_cells
from simulations.worlds.archive import Problems

Groups = list[tuple[np.ndarray, Problems]]  # from `archive.prepared`


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One policy at one T.

    Attributes:
        groups: the tests, with the beliefs that they start from.
        setting: the policy.
        per_arm: T, impressions per headline.
    """

    groups: Groups
    setting: Setting
    per_arm: int

    @property
    def identity(self) -> Mapping[str, object]:
        """All that its numbers depend on."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.groups):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return {
            "tests": digest.hexdigest(),
            "policy": self.setting.policy,
            "setting": asdict(self.setting),
            "per_arm": self.per_arm,
            "jax": jax.__version__,
            "code": code_digest(),
        }


def play_cell(cell: Cell) -> Arrays:
    """Play one cell; its arrays are those of an `archive.Played`."""
    keep_compiled_programs()
    with double_precision():
        return play_archive(cell.groups, cell.setting, cell.per_arm)._asdict()


def play_cells(
    cells: Sequence[Cell],
    *,
    workers: Workers = HERE,
    kept: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Played]:
    """Play cells, or read what an earlier call has finished; arguments and errors as in `cells.run_cells`."""
    # Arrays of this process's device cannot be sent to another.
    sent = [
        Cell(groups=jax.tree.map(np.asarray, cell.groups), setting=cell.setting, per_arm=cell.per_arm)
        for cell in cells
    ]
    found = run_cells(play_cell, sent, workers=workers, kept=kept, advance=advance)
    return [Played(**arrays) for arrays in found]
