"""Parameter groups against the official ones; AdamW against its formula."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.training import optimizer as optimizer_lib


def official_name(path: str) -> str:
    """Return the official name of a Flax parameter."""
    path = re.sub(r"block(\d)_(\d+)", r"block\1.\2", path)
    path = re.sub(r"proj_(\d)/(\w+)$", r"proj.\1/\2", path)
    path = path.replace("mlp/dwconv", "mlp/dwconv.dwconv").replace("/", ".")
    return re.sub(r"\.(kernel|scale)$", ".weight", path)


def attention_projection(name: str) -> str:
    """Undo the stem's renaming where it hits the attention's proj_1 and proj_2."""
    return re.sub(r"attn\.proj\.(\d)", r"attn.proj_\1", name)


def groups(variant: str, num_classes: int) -> dict[str, tuple[float, float]]:
    shapes = abstract_variables(SegNeXt(VARIANTS[variant], num_classes))
    rules = optimizer_lib.assign(shapes["params"], optimizer_lib.official_rules())
    return {
        attention_projection(official_name(path)): (
            rule.lr_multiplier,
            rule.decay_multiplier,
        )
        for path, rule in traverse_util.flatten_dict(rules, sep="/").items()
    }


def test_each_parameter_has_the_official_multipliers(reference):
    official = json.loads((reference / "optim_groups.json").read_text())
    for entry in [v for v in official.values() if isinstance(v, dict)]:
        ours = groups(entry["variant"], entry["num_classes"])
        theirs = {p["name"]: (p["lr_mult"], p["decay_mult"]) for p in entry["params"]}
        assert ours == theirs


def test_stem_norms_and_layer_scales_decay_but_block_norms_do_not():
    ours = groups("tiny", 19)
    assert ours["backbone.patch_embed1.proj.1.weight"] == (1.0, 1.0)
    assert ours["backbone.block1.0.layer_scale_1"] == (1.0, 1.0)
    assert ours["backbone.block3.4.norm2.bias"] == (1.0, 0.0)
    assert ours["backbone.patch_embed2.norm.weight"] == (1.0, 0.0)
    assert ours["backbone.norm4.weight"] == (1.0, 0.0)
    assert ours["decode_head.squeeze.gn.weight"] == (10.0, 1.0)


def test_unclaimed_parameter_is_refused():
    with pytest.raises(ValueError, match="neck/kernel matches none"):
        optimizer_lib.assign(
            {"neck": {"kernel": jnp.zeros(2)}}, optimizer_lib.official_rules()
        )


def test_update_equals_adamw_formula():
    rules = (
        optimizer_lib.Rule("a", "a", lr_multiplier=10.0),
        optimizer_lib.Rule("b", "b", decay_multiplier=0.0),
    )
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = {"a": rng.normal(size=(3, 5)), "b": rng.normal(size=(4,))}
        optimizer = optimizer_lib.adamw(
            lambda step: 0.1 / (1 + step),
            rules=rules,
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-8,
            weight_decay=0.3,
        )
        state = optimizer.init(params)
        expected = {name: value.copy() for name, value in params.items()}
        first = {name: 0.0 for name in params}
        second = {name: 0.0 for name in params}
        multipliers = {"a": (10.0, 1.0), "b": (1.0, 0.0)}
        for step in range(3):
            gradients = {k: rng.normal(size=v.shape) for k, v in params.items()}
            updates, state = optimizer.update(gradients, state, params)
            params = jax.tree.map(lambda p, u: p + u, params, updates)
            for name, (lr, decay) in multipliers.items():
                gradient = gradients[name]
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.99 * second[name] + 0.01 * gradient**2
                rate = 0.1 / (1 + step) * lr
                # torch.optim.AdamW: decay first, then the step.
                expected[name] *= 1 - rate * 0.3 * decay
                expected[name] -= (
                    rate
                    * (first[name] / (1 - 0.9 ** (step + 1)))
                    / (np.sqrt(second[name] / (1 - 0.99 ** (step + 1))) + 1e-8)
                )
        for name in params:
            np.testing.assert_allclose(params[name], expected[name], rtol=1e-12, atol=0)
