"""The state on disk: with a moving average, and from one mesh to another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.checkpoints import arrays
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.models.initialization import abstract_variables, initialize
from segnext_jax.ops import sharding
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import state as state_lib

RULES = optimizer_lib.official_rules()
OPTIMIZER = optimizer_lib.Optimizer(
    optimizer_lib.adamw(
        lambda step: 1e-3,
        rules=RULES,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.01,
    ),
    RULES,
    lambda step: 1e-3,
)


def create(variables, has_average=False):
    return state_lib.create(variables, OPTIMIZER, has_average=has_average)


def filled(network, has_average):
    """A state whose arrays all hold other values."""
    state = create(initialize(network, seed=0), has_average)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 9, leaf.shape), leaf.dtype), state
    )


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("has_average", [False, True])
def test_parts_of_a_checkpoint_give_the_state_again(make_network, has_average):
    state = filled(make_network(), has_average)
    model, rest = state.to_checkpoint()
    assert_same(state_lib.TrainState.from_checkpoint(model, rest), state)
    # What is evaluated, predicted with and converted reads the model alone.
    assert_same(model, state.average if has_average else state.variables())


def test_average_begins_with_copies_of_the_weights(make_network):
    """The step gives its input's memory away: no array may stand in it twice."""
    variables = jax.tree.map(jnp.asarray, initialize(make_network(), seed=0))
    state = create(variables, has_average=True)
    assert_same(state.average, variables)
    for ours, theirs in zip(
        jax.tree.leaves(state.average), jax.tree.leaves(variables), strict=True
    ):
        assert ours.unsafe_buffer_pointer() != theirs.unsafe_buffer_pointer()


def test_state_is_restored_on_another_mesh(make_network, tmp_path):
    """4 x 2 devices write; 8, 2 x 4 and one read the same bits."""
    network = make_network()
    shapes = jax.eval_shape(lambda v: create(v, True), abstract_variables(network))
    state = filled(network, has_average=True)

    def placement(mesh):
        return sharding.state_shardings(shapes, mesh, min_size=64)

    written = jax.device_put(state, placement(sharding.make_mesh(fsdp=2)))
    kernel = written.params["backbone"]["patch_embed1"]["kernel"]
    assert not kernel.sharding.is_fully_replicated
    checkpoints = Checkpoints(tmp_path)
    model, rest = written.to_checkpoint()
    checkpoints.save(1, model=model, optimizer=rest, iterator={})
    checkpoints.wait()
    for mesh in (
        sharding.make_mesh(),
        sharding.make_mesh(fsdp=4),
        sharding.make_mesh(devices=jax.devices()[:1]),
    ):
        expected = arrays.abstract(shapes, placement(mesh))
        model, rest = expected.to_checkpoint()
        model, rest, _ = checkpoints.restore(model=model, optimizer=rest)
        restored = state_lib.TrainState.from_checkpoint(model, rest)
        assert_same(restored, state)
        jax.tree.map(
            lambda leaf, place: (
                leaf.sharding.is_equivalent_to(place, leaf.ndim) or 1 / 0
            ),
            restored,
            placement(mesh),
        )
    checkpoints.close()
