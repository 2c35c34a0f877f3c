from collections.abc import Iterator

import pytest

from bandit.jax_runtime import double_precision as in_double_precision


@pytest.fixture(scope="module")
def double_precision() -> Iterator[None]:
    """JAX in float64, as the package runs its numerical core."""
    with in_double_precision():
        yield
