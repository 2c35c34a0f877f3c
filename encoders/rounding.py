"""A BERT whose dense layers multiply whole numbers of eight bits: several times as fast on CPUs that can.

References:
    Zafrir et al. (2019), Q8BERT: Quantized 8Bit BERT; there with training, here without.
"""

# mypy: disable-error-code="misc"
# (mypy does not follow flax: a module class has a base of type Any.)

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .bert import Bert

LARGEST = 127.0  # of eight bits, alike for both signs
SMALLEST = 1e-12  # scale of a row of zeros


class RoundedLinear(nnx.Module):
    """Multiply by a matrix, both sides rounded to whole numbers of eight bits.

    y_j = b_j + s t_j Σ_i round(x_i / s) round(W_ij / t_j)
    s = max_i |x_i| / 127      t_j = max_i |W_ij| / 127

    s is found for each token, so what becomes of a text does not depend on the others of its batch. The sum
    is one of whole numbers, and exact.

    Args:
        dense: The layer in float32.
    """

    def __init__(self, dense: nnx.Linear) -> None:
        kernel = dense.kernel[...]
        scale = jnp.maximum(jnp.abs(kernel).max(axis=0), SMALLEST) / LARGEST
        self.kernel = nnx.Param(jnp.round(kernel / scale).astype(jnp.int8))
        self.scale = nnx.Param(scale)
        self.bias = nnx.Param(dense.bias[...])

    def __call__(self, x: Float[Array, "*tokens dim"]) -> Float[Array, "*tokens out"]:
        """Compute the layer's output, float32."""
        scale = jnp.maximum(jnp.abs(x).max(axis=-1, keepdims=True), SMALLEST) / LARGEST
        whole = jnp.round(x / scale).astype(jnp.int8)
        axes = (((x.ndim - 1,), (0,)), ((), ()))
        sums = jax.lax.dot_general(whole, self.kernel[...], axes, preferred_element_type=jnp.int32)
        return sums.astype(jnp.float32) * scale * self.scale[...] + self.bias[...]


def rounded(bert: Bert) -> Bert:
    """Return the same model with rounded dense layers; embeddings, norms and attention's products stay.

    Args:
        bert: A model in float32 without pooler; it is left as it is, and shares what is not rounded.
    """
    copy: Bert = nnx.merge(*nnx.split(bert))
    for layer in copy.layers:
        layer.attention.qkv = RoundedLinear(layer.attention.qkv)
        layer.attention.out = RoundedLinear(layer.attention.out)
        layer.widen = RoundedLinear(layer.widen)
        layer.narrow = RoundedLinear(layer.narrow)
    return copy
