"""One training step of any task: forward, loss, backward, update."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num
from ml_collections import ConfigDict

from segnext_jax.models.normalization import MOMENTS, update_statistics
from segnext_jax.ops.platforms import by_platform
from segnext_jax.ops.sharding import FSDP_AXIS
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training.optimizer import Optimizer
from segnext_jax.training.stacks import Stacks, split
from segnext_jax.training.state import TrainState

StepFn = Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]

# One named stream of random numbers for each use, so that a new use leaves the draws of
# the others as they were.
STREAMS = (
    *("photometric", "drop_path", "dropout", "nmf", "grey"),
    *("mixing", "erasing"),
)


class PreparedBatch(NamedTuple):
    """A batch as the network sees it, and how its logits are scored.

    Attributes:
      images: The network's input.
      targets: Tree of arrays; like ``images``, their first dimension is the batch.
      score_fn: Takes (logits, targets) of the batch or of a part. Returns (terms,
        hits): the terms of the loss by name, and the number of right answers. Both add
        up over the parts to those of the batch.
      num_labels: Number of answers that can be right.
    """

    images: Any
    targets: Any
    score_fn: Callable[[Any, Any], tuple[dict[str, Any], Any]]
    num_labels: Any


PrepareFn = Callable[[dict[str, Any], dict[str, Array]], PreparedBatch]


def step_keys(seed: int, step: Array) -> dict[str, Array]:
    """Return a key per stream: a function of seed, step and name alone."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(STREAMS)}


def make_step(
    model: nn.Module,
    optimizer: Optimizer,
    prepare: PrepareFn,
    config: ConfigDict,
    params_in_use: jax.sharding.Sharding | None = None,
) -> StepFn:
    """Return ``(state, batch) -> (state, metrics)`` of any task, to be jitted.

    Args:
      model: The network; its ``apply`` takes images and ``train``, and returns logits.
      optimizer: The rules, which say what is trained, and the transformation.
      prepare: Makes a `PreparedBatch` from a batch and the keys of `step_keys`; of a
        task: `training.tasks`.
      config: The configuration of the run; ``seed``, ``accumulate_steps`` and
        ``average_decay`` are used.
      params_in_use: Sharding of the parameters while the network computes, where the
        state spreads parameters over devices. Without this sharding XLA spreads
        activations like the kernels that they meet, and moves activations back and
        forth.

    Metrics are float32 scalars: ``loss``, the terms of the loss where there are
    several, ``accuracy`` (share of right answers), ``gradient_norm`` (of what is
    trained, before clipping) and ``update_norm``. Where the loss or the gradient norm
    is not finite, ``step`` grows by 1, and the rest of the state stays as it was. Where
    only ``update_norm`` is not finite, the optimizer's moments move, too.

    With ``accumulate_steps`` above 1 the step needs the memory of one part. Loss and
    gradient equal those of the whole batch where the network computes each image on its
    own: means divide by the pixels of the whole batch, and colours are distorted before
    the batch is cut.
    Differs: from one pass over the whole batch, in training mode each BatchNorm
    normalises by the part's statistics; drop path, dropout and NMF bases are drawn for
    each part; Lovasz-softmax and the choice of hard pixels see one part at a time.
    The running statistics move once per step, by the moments of the whole batch.
    """
    accumulate_steps, average_decay = config.accumulate_steps, config.average_decay
    rules = optimizer.rules
    # XLA would gather parameters that are spread over devices to join them.
    is_whole = _is_whole(params_in_use)
    smallest_apart = None if is_whole else config.mesh.fsdp_min_size
    transformation = optax.with_extra_args_support(optimizer.transformation)

    def train_step(state: TrainState, batch: dict[str, Any]):
        keys = step_keys(config.seed, state.step)
        images, targets, score, num_labels = prepare(batch, keys)
        in_use = state.params
        if params_in_use is not None:
            in_use = jax.lax.with_sharding_constraint(in_use, params_in_use)
        trained, frozen = optimizer_lib.split(in_use, rules)

        def loss_fn(trained, images, targets, keys, collection):
            params = optimizer_lib.join(trained, frozen)
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=[collection],
                rngs=keys,
            )
            terms, hits = score(logits, targets)
            sums = {**terms, "hits": hits}
            return sum(terms.values()), (sums, updates.get(collection, {}))

        loss_and_gradients = jax.value_and_grad(loss_fn, has_aux=True)
        if accumulate_steps == 1:
            (_, (sums, batch_stats)), gradients = loss_and_gradients(
                trained, images, targets, keys, "batch_stats"
            )
        else:
            cut = functools.partial(_cut, num_parts=accumulate_steps)

            def add_part(gradients, part):
                index, images, targets = part
                part_keys = {k: jax.random.fold_in(v, index) for k, v in keys.items()}
                (_, aux), more = loss_and_gradients(
                    trained, images, targets, part_keys, MOMENTS
                )
                return jax.tree.map(jnp.add, gradients, more), aux

            gradients, (sums, moments) = jax.lax.scan(
                add_part,
                jax.tree.map(jnp.zeros_like, trained),
                (
                    jnp.arange(accumulate_steps),
                    cut(images),
                    jax.tree.map(cut, targets),
                ),
            )
            sums = jax.tree.map(lambda part: jnp.sum(part, axis=0), sums)
            batch_stats = update_statistics(state.batch_stats, moments)

        loss = sum(value for name, value in sums.items() if name != "hits")
        trained, frozen = optimizer_lib.split(state.params, rules)
        # A network whose BatchNorms are all frozen returns no statistics.
        statistics = (batch_stats or state.batch_stats, state.batch_stats)
        moved = by_platform(
            *(gradients, state.optimizer_state, trained, statistics, loss),
            default=_move,
            cuda=_move_stacks,
            optimizer=transformation,
            rules=rules,
            smallest_apart=smallest_apart,
        )
        old_average = state.average
        state = state.replace(
            step=state.step + 1,
            params=optimizer_lib.join(moved.params, frozen),
            batch_stats=moved.batch_stats,
            optimizer_state=moved.optimizer_state,
        )
        if state.average is not None:
            average = jax.tree.map(
                lambda old, new: average_decay * old + (1 - average_decay) * new,
                state.average,
                state.variables(),
            )
            state = state.replace(average=average)

        metrics = {
            "accuracy": sums.pop("hits") / jnp.maximum(num_labels, 1),
            "gradient_norm": moved.gradient_norm,
            "update_norm": moved.update_norm,
            "loss": loss,
        }
        if len(sums) > 1:
            metrics |= {f"loss_{name}": value for name, value in sums.items()}
        # `_move` has kept everything else of a broken step.
        average = optimizer_lib.keep(moved.is_moved, state.average, old_average)
        return state.replace(average=average), metrics

    return train_step


def _is_whole(params: jax.sharding.Sharding | None) -> bool:
    """Return whether each device stores all parameters, between the steps, too."""
    if not isinstance(params, jax.sharding.NamedSharding):
        return True
    return params.mesh.shape.get(FSDP_AXIS, 1) == 1


class _Moved(NamedTuple):
    """Result of an update.

    Attributes:
      params: The new parameters if ``is_moved``, else the old ones.
      batch_stats: The new statistics if ``is_moved``, else the old ones.
      optimizer_state: The new state; the old one if loss or gradient is not finite.
      gradient_norm: Euclidean norm of the whole gradient, before clipping.
      update_norm: Euclidean norm of the whole update.
      is_moved: Whether loss, gradient and update are finite.
    """

    params: Any
    batch_stats: Any
    optimizer_state: Any
    gradient_norm: Any
    update_norm: Any
    is_moved: Any


def _move(
    gradients: Any,
    optimizer_state: Any,
    params: Any,
    statistics: tuple[Any, Any],
    loss: Array,
    *,
    optimizer: optax.GradientTransformationExtraArgs,
    rules: tuple[optimizer_lib.Rule, ...],
    smallest_apart: int | None = None,
    norm_fn: Callable[[Any], Array] | None = None,
) -> _Moved:
    """Return parameters, statistics (new, old) and optimizer state after an update.

    A broken step changes none: the moments would keep a nan for the rest of the run.
    """
    del rules, smallest_apart
    norm_fn = norm_fn or _norm
    gradient_norm = norm_fn(gradients)
    is_finite = jnp.isfinite(loss + gradient_norm)
    # Without the barrier XLA keeps the squares that the norm sums in memory, because
    # Adam squares the gradients, too.
    gradients = jax.lax.optimization_barrier(gradients)
    updates, optimizer_state = optimizer.update(
        gradients, optimizer_state, params, is_finite=is_finite
    )
    update_norm = norm_fn(updates)
    # The parameters move after everything that reads the old ones. Otherwise XLA would
    # copy the donated state before it overwrites the state.
    is_moved = is_finite & jnp.isfinite(update_norm)
    params = optimizer_lib.keep(is_moved, optax.apply_updates(params, updates), params)
    batch_stats = optimizer_lib.keep(is_moved, *statistics)
    return _Moved(
        *(params, batch_stats, optimizer_state, gradient_norm, update_norm, is_moved)
    )


def _move_stacks(
    gradients: Any,
    optimizer_state: Any,
    params: Any,
    statistics: tuple[Any, Any],
    loss: Array,
    *,
    optimizer: optax.GradientTransformationExtraArgs,
    rules: tuple[optimizer_lib.Rule, ...],
    smallest_apart: int | None = None,
) -> _Moved:
    """Return what `_move` returns, with few kernels that update many arrays each.

    Not for TPUs, whose program grows by it.
    """
    claimed = jax.tree.map(lambda rule: rule.name, optimizer_lib.assign(params, rules))
    of_params = Stacks(params, claimed, smallest_apart)
    of_statistics = Stacks(statistics[0], jax.tree.map(lambda _: "", statistics[0]))
    moved = _move(
        of_params.join(gradients),
        of_params.join(optimizer_state),
        of_params.join(params),
        of_statistics.join(statistics),
        loss,
        optimizer=optimizer,
        rules=rules,
        norm_fn=_joined_norm if smallest_apart is None else _norm,
    )
    params, optimizer_state, batch_stats = split(
        [
            (of_params, moved.params, params),
            (of_params, moved.optimizer_state, optimizer_state),
            (of_statistics, moved.batch_stats, statistics[0]),
        ],
        moved.is_moved,
    )
    return moved._replace(
        params=params, optimizer_state=optimizer_state, batch_stats=batch_stats
    )


def _cut(
    array: Num[Array, "batch ..."], num_parts: int
) -> Num[Array, "num_parts part ..."]:
    """Cut a batch into parts; part i holds the images i, i + num_parts, ...

    So each part has images from every device, and no image moves to another device.
    """
    size = array.shape[0] // num_parts
    return jnp.swapaxes(array.reshape(size, num_parts, *array.shape[1:]), 0, 1)


def _norm(tree: Any) -> Float[Array, ""]:
    """Return the Euclidean norm of all values of a tree."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _joined_norm(tree: Any) -> Float[Array, ""]:
    """Return `_norm` by one sum, since one sum per leaf is a kernel or two per leaf."""
    leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.square(jnp.concatenate(leaves))))
