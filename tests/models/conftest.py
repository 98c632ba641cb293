"""The plain PyTorch network of benchmarks/compare, and ours with its weights."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from segnext_jax.convert.names import entries, to_flax
from segnext_jax.models.segnext import VARIANTS, SegNeXt, Variant

# The networks are compiled for one call each: half the time without optimisation.
QUICK = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass
class Pair:
    """One network twice, with the same weights, drop path and dropout 0."""

    torch: types.ModuleType
    theirs: Any
    ours: SegNeXt
    rule: types.ModuleType
    variant: Variant

    def inputs(self, batch, height, width, seed=0):
        """Images NHWC and bases, float64, of float32 values."""
        generator = np.random.default_rng([seed, height, width])
        images = generator.standard_normal((batch, height, width, 3), np.float32)
        sizes = batch, self.variant.head_channels, self.variant.rank
        return images.astype(np.float64), self.rule.bases_for(*sizes).astype(np.float64)

    def run_theirs(self, images, bases, train=False):
        """Four features and logits, NHWC tensors that remember their origin."""
        dtype = next(self.theirs.parameters()).dtype
        self.theirs.train(train)
        self.theirs.bases = self.torch.tensor(bases, dtype=dtype)
        nchw = self.torch.tensor(images.transpose(0, 3, 1, 2), dtype=dtype)
        features = self.theirs.backbone(nchw)
        logits = self.theirs.decode_head(features)
        return [array.permute(0, 2, 3, 1) for array in (*features, logits)]

    def variables(self, dtype, values=None):
        """The weights, or other values under PyTorch's names, as Flax variables."""
        values = values or self.theirs.state_dict()
        flat = {
            entry.path: to_flax(
                values[entry.official].numpy().astype(dtype), entry.layout
            )
            for entry in entries(self.variant, self.ours.num_classes)
            if entry.path is not None and entry.official in values
        }
        return unflatten_dict(flat)

    def run_ours(self, images, bases, dtype, implementation="shifted"):
        """Four features and logits at inference, in one compiled call."""

        def features_and_logits(model, images, bases):
            features = model.backbone(images, False)
            return *features, model.decode_head(features, bases, False)

        model = self.ours.clone(
            dtype=dtype, param_dtype=dtype, depthwise_implementation=implementation
        )
        apply = jax.jit(
            lambda *a: model.apply(*a, method=features_and_logits),
            compiler_options=QUICK,
        )
        arguments = (jnp.asarray(images, dtype), jnp.asarray(bases, dtype))
        outputs = apply(self.variables(dtype), *arguments)
        return [np.asarray(output) for output in outputs]


@pytest.fixture(scope="session")
def make_pair(load_compared):
    torch = pytest.importorskip("torch", reason="the oracle is in torch")
    oracle = load_compared("torch_segnext")
    rule = load_compared("weights")

    def make(variant, num_classes=7, dtype="float64"):
        sizes = dataclasses.replace(
            variant if isinstance(variant, Variant) else VARIANTS[variant],
            drop_path_rate=0.0,
        )
        oracle.SPECS["pair"] = dataclasses.astuple(sizes)
        theirs = oracle.SegNeXt("pair", num_classes, dropout=0.0)
        values = {
            name: torch.from_numpy(np.array(rule.value_for(name, value.shape)))
            for name, value in theirs.state_dict().items()
        }
        theirs.load_state_dict(values)
        theirs = theirs.to(getattr(torch, dtype))
        ours = SegNeXt(sizes, num_classes, dropout_rate=0.0)
        return Pair(torch, theirs, ours, rule, sizes)

    return make
