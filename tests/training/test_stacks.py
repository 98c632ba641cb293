import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import step as step_lib
from segnext_jax.training.stacks import Stacks, split

RULES = (
    optimizer_lib.Rule("head", r"decode_head/.*", lr_multiplier=10.0),
    optimizer_lib.Rule("norm", r".*norm.*", decay_multiplier=0.0),
    optimizer_lib.Rule("encoder", r"backbone/.*"),
)


def params():
    """Two blocks of equal shapes, and a large array in each."""
    generator = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(generator.standard_normal(shape), jnp.float32)

    def block():
        return {
            "norm1": {"scale": draw(5), "bias": draw(5)},
            "proj": {"kernel": draw(200, 170), "bias": draw(5)},
            "strip": {"kernel": draw(1, 7, 5)},
        }

    return {
        "backbone": {f"block{index}": block() for index in range(3)},
        "decode_head": {"conv": {"bias": draw(5)}},
    }


def adamw(**options):
    return optimizer_lib.adamw(
        lambda step: 0.01 / (1 + step),
        rules=RULES,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.1,
        **options,
    )


def test_small_arrays_of_one_rule_are_one_vector():
    tree = params()
    claimed = optimizer_lib.assign(tree, RULES)
    stacks = Stacks(tree, jax.tree.map(lambda rule: rule.name, claimed))
    joined = stacks.join(tree)
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(joined))
    # The head's bias has another rate than the encoder's; norms do not decay.
    encoder = 3 * (7 * 5 + 5)
    assert shapes == sorted([(5,), (3 * 10,), (encoder,), *[(200, 170)] * 3])
    (given,) = split([(stacks, joined, tree)], jnp.array(False))
    jax.tree.map(np.testing.assert_array_equal, given, tree)


@pytest.mark.parametrize(
    "options",
    [{}, {"max_gradient_norm": 1.0}, {"momentum_dtype": "bfloat16"}],
    ids=["plain", "clipped", "short"],
)
def test_an_update_of_stacks_equals_that_of_each_array(options):
    optimizer = adamw(**options)
    old = params()
    gradients = jax.tree.map(np.sin, old)
    _, state = jax.jit(optimizer.update)(
        jax.tree.map(np.cos, old), optimizer.init(old), old
    )
    statistics = {"norm1": {"mean": np.arange(5.0), "var": np.arange(3.0)}}
    statistics = jax.tree.map(np.float32, statistics)
    new = jax.tree.map(lambda array: array + 1, statistics)
    move_stacks, move = (
        jax.jit(functools.partial(function, optimizer=optimizer, rules=RULES))
        for function in (step_lib._move_stacks, step_lib._move)
    )
    # Norms are sums in another order, and clipping divides by one.
    check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-9)
    for loss in np.float32([1, np.nan]):
        arguments = gradients, state, old, (new, statistics), loss
        given, wanted = move_stacks(*arguments), move(*arguments)
        assert bool(given.is_moved) == np.isfinite(loss)
        jax.tree.map(
            lambda ours, theirs: check(np.float32(ours), np.float32(theirs)),
            *(given, wanted),
        )


def test_shared_parameters_stay_apart():
    tree = params()
    stacks = Stacks(tree, jax.tree.map(lambda _: "", tree), smallest_apart=7 * 5)
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(stacks.join(tree)))
    assert sizes == [*[7 * 5] * 3, 3 * 15 + 5, *[200 * 170] * 3]
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"))
    spec = jax.sharding.PartitionSpec()
    assert not step_lib._is_whole(jax.sharding.NamedSharding(mesh, spec))
    mesh = jax.make_mesh((8, 1), ("data", "fsdp"))
    assert step_lib._is_whole(jax.sharding.NamedSharding(mesh, spec))
