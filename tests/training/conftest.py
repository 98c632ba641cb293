"""A network that compiles in a second, with the parts that the recipe is about."""

import flax.linen as nn
import pytest

from segnext_jax.models.normalization import BatchNorm


class Encoder(nn.Module):
    """A convolution that shrinks by 8, BatchNorm, ReLU; names are those of MSCAN."""

    freeze_batch_norm: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train):
        types = {"dtype": self.dtype, "param_dtype": self.dtype}
        maps = nn.Conv(16, (8, 8), (8, 8), name="patch_embed1", **types)(images)
        norm = BatchNorm(is_frozen=self.freeze_batch_norm, name="norm1", **types)
        return nn.relu(norm(maps, train))


class Network(nn.Module):
    """Images to logits of five classes at 1/8 of their size."""

    freeze_batch_norm: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train=False):
        maps = Encoder(self.freeze_batch_norm, self.dtype, name="backbone")(
            images, train
        )
        types = {"dtype": self.dtype, "param_dtype": self.dtype}
        return nn.Dense(5, name="decode_head", **types)(maps)


@pytest.fixture(scope="session")
def make_network():
    return Network
