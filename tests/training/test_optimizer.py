"""Parameter groups against the official ones; AdamW against its formula."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from segnext_jax.config import base_config
from segnext_jax.convert.names import entries
from segnext_jax.models.classifier import MSCANClassifier
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
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        expected = {name: value.copy() for name, value in params.items()}
        first = {name: 0.0 for name in params}
        second = {name: 0.0 for name in params}
        multipliers = {"a": (10.0, 1.0), "b": (1.0, 0.0)}
        for step in range(3):
            gradients = {k: rng.normal(size=v.shape) for k, v in params.items()}
            updates, state = update(gradients, state, params)
            params = {name: params[name] + np.asarray(updates[name]) for name in params}
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


def make_adamw(rules, **options):
    fixed = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}
    return optimizer_lib.adamw(lambda step: 6e-5, rules=rules, **{**fixed, **options})


def test_each_parameter_gets_the_official_rate_and_decay(reference):
    """Read from what the optimizer does: a unit gradient at 0, and none at 1."""
    official = json.loads((reference / "optim_groups.json").read_text())["official_lr"]
    variant, num_classes = official["variant"], official["num_classes"]
    shapes = abstract_variables(SegNeXt(VARIANTS[variant], num_classes))["params"]
    with jax.enable_x64(True):
        zeros = jax.tree.map(lambda _: np.zeros(()), shapes)
        ones = jax.tree.map(lambda _: np.ones(()), shapes)
        optimizer = make_adamw(optimizer_lib.official_rules())
        state = optimizer.init(zeros)
        rates, decays = (
            traverse_util.flatten_dict(optimizer.update(*arguments)[0], sep="/")
            for arguments in ((ones, state, zeros), (zeros, state, ones))
        )
    named = {}
    for path, rate in rates.items():
        rate = -float(rate) * (1 + 1e-8)
        decay = -float(decays[path]) / rate
        named[attention_projection(official_name(path))] = (rate, decay)
    assert set(named) == {parameter["name"] for parameter in official["params"]}
    for parameter in official["params"]:
        expected = (parameter["lr"], parameter["weight_decay"])
        assert named[parameter["name"]] == pytest.approx(expected, rel=1e-12, abs=0)


def params_of_tiny():
    return abstract_variables(SegNeXt(VARIANTS["tiny"], 19))["params"]


def test_layer_decay_is_a_power_of_the_distance_to_the_head():
    depths = VARIANTS["tiny"].depths
    rules = optimizer_lib.official_rules(layer_decay=0.8, depths=depths)
    claimed = traverse_util.flatten_dict(
        optimizer_lib.assign(params_of_tiny(), rules), sep="/"
    )
    # 13 blocks: the stem is layer 0, the head would be layer 14.
    for path, layer in {
        "patch_embed1/proj_0/kernel": 0,
        "patch_embed1/proj_4/scale": 0,
        "block1_0/layer_scale_1": 1,
        "block1_2/mlp/fc1/kernel": 3,
        "norm1/scale": 3,
        "patch_embed2/proj/kernel": 4,
        "patch_embed2/norm/bias": 4,
        "block2_0/norm1/scale": 4,
        "block3_0/attn/proj_1/bias": 7,
        "block3_4/norm2/bias": 11,
        "norm3/bias": 11,
        "patch_embed4/proj/bias": 12,
        "block4_1/mlp/fc2/bias": 13,
        "norm4/scale": 13,
    }.items():
        rule = claimed[f"backbone/{path}"]
        assert rule.lr_multiplier == pytest.approx(0.8 ** (14 - layer)), path
        assert rule.decay_multiplier == (0.0 if "norm" in path else 1.0), path
    assert {
        (rule.lr_multiplier, rule.decay_multiplier)
        for path, rule in claimed.items()
        if path.startswith("decode_head")
    } == {(10.0, 1.0)}
    # Decay apart, the official groups claim the same.
    plain = traverse_util.flatten_dict(
        optimizer_lib.assign(params_of_tiny(), optimizer_lib.official_rules()), sep="/"
    )
    for path, rule in plain.items():
        assert claimed[path].decay_multiplier == rule.decay_multiplier, path


@pytest.mark.parametrize("layer_decay", [1.0, 0.9])
def test_frozen_stages_are_those_first_ones(layer_decay):
    rules = optimizer_lib.official_rules(
        num_frozen_stages=2, layer_decay=layer_decay, depths=VARIANTS["tiny"].depths
    )
    params = params_of_tiny()
    trained, frozen = optimizer_lib.split(params, rules)
    assert set(trained) == {"backbone", "decode_head"}
    assert set(frozen["backbone"]) == {
        *("patch_embed1", "block1_0", "block1_1", "block1_2", "norm1"),
        *("patch_embed2", "block2_0", "block2_1", "block2_2", "norm2"),
    }
    assert not set(frozen["backbone"]) & set(trained["backbone"])
    assert optimizer_lib.join(trained, frozen) == params
    # 6 blocks of 32, the stem's 8, a downsampling's 4, two norms of 2.
    line = optimizer_lib.summarize(params, rules)[1]
    assert line.startswith("frozen: 208 tensors") and line.endswith("not trained")


def test_nothing_frozen_leaves_the_tree_whole():
    params = {"backbone": {"a": 1}, "decode_head": {"b": 2}}
    parts = optimizer_lib.split(params, optimizer_lib.official_rules())
    assert parts == (params, {})
    assert optimizer_lib.join(*parts) == params


@pytest.mark.parametrize("norm, factor", [(2.5, 0.5), (5.0, 1.0), (100.0, 1.0)])
def test_gradient_is_clipped_by_its_global_norm(norm, factor):
    """A gradient of norm 5 over two arrays, seen through Adam's mean of it."""
    gradients = {
        "backbone": {"a": np.float32([3, 0])},
        "decode_head": {"b": np.float32([4])},
    }
    params = jax.tree.map(np.zeros_like, gradients)
    optimizer = make_adamw(optimizer_lib.official_rules(), max_gradient_norm=norm)
    _, state = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    mean = next(part.mu for part in state if hasattr(part, "mu"))
    np.testing.assert_allclose(
        mean["backbone"]["a"], [0.3 * factor, 0.0], rtol=1e-6, atol=0
    )
    np.testing.assert_allclose(mean["decode_head"]["b"], [0.4 * factor], rtol=1e-6)


def test_mean_of_gradients_is_kept_in_the_type_asked_for():
    params = {"decode_head": {"b": jnp.ones(3)}}
    optimizer = make_adamw(optimizer_lib.official_rules(), momentum_dtype="bfloat16")
    _, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    moments = next(part for part in state if hasattr(part, "mu"))
    assert moments.mu["decode_head"]["b"].dtype == jnp.bfloat16
    assert moments.nu["decode_head"]["b"].dtype == jnp.float32


def test_first_steps_in_float32_are_accurate():
    """The corrections 1 - beta^t cancel; in float32 that would cost 6e-6 of a step."""
    params = {"decode_head": {"b": jnp.zeros(4)}}
    optimizer = make_adamw((optimizer_lib.Rule("all", ".*"),))
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    rng = np.random.default_rng(0)
    first = second = np.zeros(4)
    for step in range(1, 6):
        gradient = rng.normal(size=4).astype(np.float32)
        updates, state = update({"decode_head": {"b": gradient}}, state, params)
        gradient = gradient.astype(np.float64)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        direction = (first / (1 - 0.9**step)) / np.sqrt(second / (1 - 0.999**step))
        np.testing.assert_allclose(
            updates["decode_head"]["b"], -6e-5 * direction, rtol=1e-6, atol=0
        )


def test_pretraining_decays_what_timm_decays():
    """Parameters of more than one dimension in PyTorch, whatever their names."""
    variant = VARIANTS["tiny"]
    params = abstract_variables(MSCANClassifier(variant, 1000))["params"]
    rules = optimizer_lib.assign(params, optimizer_lib.pretraining_rules())
    found = {
        path: rule.decay_multiplier
        for path, rule in traverse_util.flatten_dict(rules, sep="/").items()
    }
    expected = {
        "/".join(entry.path[1:]): float(len(entry.shape) > 1)
        for entry in entries(variant, 1000, "classifier")
        if entry.path and entry.path[0] == "params"
    }
    assert found == expected
    assert sum(found.values()) > 100


def test_pretraining_can_freeze_stages():
    rules = optimizer_lib.pretraining_rules(num_frozen_stages=1)
    params = abstract_variables(MSCANClassifier(VARIANTS["tiny"], 1000))["params"]
    trained, frozen = optimizer_lib.split(params, rules)
    assert set(frozen["backbone"]) == {
        *("patch_embed1", "block1_0", "block1_1", "block1_2", "norm1")
    }
    assert set(trained) == {"backbone", "head"}


def test_the_mean_of_gradients_has_the_type_of_the_parameters_unless_it_is_short():
    config = base_config()
    for name, expected in (("float32", jnp.float64), ("bfloat16", jnp.bfloat16)):
        config.optimizer.momentum_dtype = name
        optimizer = optimizer_lib.Optimizer.from_config(config)
        with jax.enable_x64(True):
            state = optimizer.init({"norm": {"scale": jnp.ones(3, jnp.float64)}})
        (adam,) = (part for part in state if hasattr(part, "mu"))
        assert adam.mu["norm"]["scale"].dtype == expected
        assert adam.nu["norm"]["scale"].dtype == jnp.float64
