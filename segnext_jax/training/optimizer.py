"""AdamW with the official parameter groups, as a table of rules."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from segnext_jax.models.segnext import SegNeXt
from segnext_jax.training import schedule as schedule_lib
from segnext_jax.training.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Rule:
    """One group of parameters.

    Attributes:
      name: Shown in logs.
      pattern: Regular expression that matches the whole path ``a/b/c``.
      lr_multiplier: Factor on the learning rate.
      decay_multiplier: Factor on the weight decay.
      is_frozen: Whether its parameters stay as they are, without gradients or moments.
    """

    name: str
    pattern: str
    lr_multiplier: float = 1.0
    decay_multiplier: float = 1.0
    is_frozen: bool = False


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How the parameters of a network are trained; a run makes one optimizer.

    Attributes:
      transformation: Takes gradients and values of the parameters that are trained; see
        `adamw`.
      rules: The groups of parameters, each claimed by the first that matches.
      schedule: Learning rate of a group with factor 1, by step.
    """

    transformation: optax.GradientTransformation
    rules: tuple[Rule, ...]
    schedule: Schedule

    @classmethod
    def from_config(
        cls, config: ConfigDict, schedule: Schedule | None = None
    ) -> "Optimizer":
        """Return AdamW with the groups of the task, by the schedule if one is given."""
        options, rules = config.optimizer, _rules_of(config)
        schedule = schedule or schedule_lib.from_config(config)
        fields = "beta1 beta2 epsilon weight_decay max_gradient_norm momentum_dtype"
        chosen = {name: options[name] for name in fields.split()}
        if chosen["momentum_dtype"] == "float32":
            # As parameters are. Those of a float64 network would move by rounded means.
            chosen["momentum_dtype"] = None
        return cls(adamw(schedule, rules=rules, **chosen), rules, schedule)

    def init(self, params: Any) -> Any:
        """Return the state before the first update, of the parameters' trained part."""
        return self.transformation.init(split(params, self.rules)[0])


def _rules_of(config: ConfigDict) -> tuple[Rule, ...]:
    if config.task == "classification":
        return pretraining_rules(config.model.frozen_stages)
    return official_rules(
        config.optimizer.head_lr_multiplier,
        config.optimizer.norm_decay_multiplier,
        num_frozen_stages=config.model.frozen_stages,
        layer_decay=config.optimizer.layer_decay,
        depths=SegNeXt.from_config(config.model, num_classes=1).variant.depths,
    )


def official_rules(
    head_lr_multiplier: float = 10.0,
    norm_decay_multiplier: float = 0.0,
    *,
    num_frozen_stages: int = 0,
    layer_decay: float = 1.0,
    depths: Sequence[int] = (),
) -> tuple[Rule, ...]:
    """Return the groups of the official configs; the first rule that matches wins.

    With ``layer_decay`` d below 1, the rate of layer i of the encoder is multiplied by

        d^(N + 1 - i)

    where N is the number of blocks. Block k of all (from 1) is layer k, and the stem is
    layer 0. The convolution between two stages belongs to the block after it, the norm
    at the end of a stage to the block before it. The head would be layer N + 1.

    Args:
      head_lr_multiplier: Factor on the learning rate of the head.
      norm_decay_multiplier: Factor on the weight decay of the encoder's norms.
      num_frozen_stages: First stages of the encoder that are not trained.
      layer_decay: Factor on the learning rate from one layer to the one before it, in
        (0, 1]. Source: ``get_num_layer_for_vit`` and ``LayerDecayValueAssigner`` of
        BEiT and ConvNeXt, which use 0.65 to 0.9.
      depths: Blocks of each stage; needed when ``layer_decay`` is not 1.

    Source: ``paramwise_cfg.custom_keys`` (``head``, ``norm``; ``pos_block`` matches
    nothing) in the official configs of SegNeXt@c87bcae, read by mmcv's
    ``DefaultOptimizerConstructor`` as substrings of the parameter's name. What follows
    from that: the head's GroupNorms and biases decay, and so do the stem's BatchNorms,
    whose names hold no "norm", the encoder's biases and its layer scales.
    """
    rules = [Rule("head", r"decode_head/.*", lr_multiplier=head_lr_multiplier)]
    rules.extend(_frozen(num_frozen_stages))
    if layer_decay != 1:
        for name, modules, distance in _layers(depths):
            multiplier = layer_decay**distance
            path = rf"backbone/({modules})/.*"
            norm = rf"(?=.*norm){path}"
            rules.append(Rule(f"{name} norm", norm, multiplier, norm_decay_multiplier))
            rules.append(Rule(name, path, multiplier))
    else:
        rules.append(Rule("norm", r".*norm.*", decay_multiplier=norm_decay_multiplier))
        rules.append(Rule("encoder", r"backbone/.*"))
    return tuple(rules)


def pretraining_rules(num_frozen_stages: int = 0) -> tuple[Rule, ...]:
    """Return the groups of the ImageNet recipe: biases, norms and scales do not decay.

    Args:
      num_frozen_stages: First stages of the encoder that are not trained.

    Source: ``add_weight_decay`` of timm 0.4.12, which exempts parameters with one
    dimension or a name that ends in ``.bias``; the kernel of a depthwise convolution
    has more.
    """
    return (
        *_frozen(num_frozen_stages),
        Rule("vectors", r".*/(bias|scale|layer_scale_\d)", decay_multiplier=0.0),
        Rule("kernels", r".*/kernel"),
    )


def _frozen(num_stages: int) -> tuple[Rule, ...]:
    """Return the rule of the first stages of the encoder, if there are any."""
    if not num_stages:
        return ()
    stages = f"[1-{num_stages}]"
    modules = rf"(patch_embed{stages}|block{stages}_\d+|norm{stages})"
    return (Rule("frozen", rf"backbone/{modules}/.*", is_frozen=True),)


def _layers(depths: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Yield (name, pattern of its modules, layers up to the head), from the stem on."""
    layers = [("stem", ["patch_embed1"])]
    for stage, depth in enumerate(depths, start=1):
        blocks = [f"block{stage}_{index}" for index in range(depth)]
        layers += [(block, [block]) for block in blocks]
        # Of the layer before, where the stage has no block.
        if stage > 1:
            layers[-max(depth, 1)][1].append(f"patch_embed{stage}")
        layers[-1][1].append(f"norm{stage}")
    for index, (name, modules) in enumerate(layers):
        yield name, "|".join(modules), len(layers) - index


def assign(params: Any, rules: tuple[Rule, ...]) -> Any:
    """Return a tree like ``params`` with the rule that claims each parameter.

    Raises:
      ValueError: If no rule matches a parameter.
    """

    def claim(path: str) -> Rule:
        for rule in rules:
            if re.fullmatch(rule.pattern, path):
                return rule
        raise ValueError(
            f"every parameter must match a rule of the optimizer: {path} matches none "
            f"of {[rule.pattern for rule in rules]}. Add a rule for it."
        )

    paths = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict({p: claim(p) for p in paths}, sep="/")


def summarize(params: Any, rules: tuple[Rule, ...]) -> list[str]:
    """Return one line per rule: what it claims and how it treats it."""
    claimed = traverse_util.flatten_dict(assign(params, rules), sep="/")
    leaves = traverse_util.flatten_dict(params, sep="/")
    tensors: collections.Counter[str] = collections.Counter()
    values: collections.Counter[str] = collections.Counter()
    for path, rule in claimed.items():
        tensors[rule.name] += 1
        values[rule.name] += leaves[path].size
    return [
        f"{rule.name}: {tensors[rule.name]} tensors, {values[rule.name]:,} values, "
        + (
            "not trained"
            if rule.is_frozen
            else f"learning rate x{rule.lr_multiplier:g}, "
            f"weight decay x{rule.decay_multiplier:g}"
        )
        for rule in rules
        # A layer without norms, a group that is frozen as a whole.
        if tensors[rule.name]
    ]


def split(params: Any, rules: tuple[Rule, ...]) -> tuple[Any, Any]:
    """Return (trained, frozen): two trees whose `join` is ``params``."""
    claimed = traverse_util.flatten_dict(assign(params, rules), sep="/")
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        parts[claimed[path].is_frozen][path] = leaf
    trained, frozen = (traverse_util.unflatten_dict(part, sep="/") for part in parts)
    return trained, frozen


def join(trained: Any, frozen: Any) -> Any:
    """Return the tree that `split` took apart."""
    parts = (traverse_util.flatten_dict(part) for part in (trained, frozen))
    return traverse_util.unflatten_dict(
        {k: v for part in parts for k, v in part.items()}
    )


def adamw(
    schedule: Schedule,
    *,
    rules: tuple[Rule, ...],
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    max_gradient_norm: float = 0.0,
    momentum_dtype: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return AdamW whose learning rate and decay follow ``rules``.

    The optimizer takes only the parameters that are trained; see `split`. Where the
    argument ``is_finite`` of its ``update`` is False, it keeps its state.

    For a parameter p of rule r, with Adam's direction u:

        rate = schedule(step) * r.lr_multiplier
        decay = weight_decay * r.decay_multiplier
        p <- p - rate * (u + decay * p)

    Args:
      schedule: Learning rate of a group with factor 1.
      rules: Groups of parameters; the first rule that matches a parameter sets its
        group.
      beta1: Decay of the mean of gradients.
      beta2: Decay of the mean of their squares.
      epsilon: Added to the root of the latter.
      weight_decay: See above.
      max_gradient_norm: The gradients of all parameters together are scaled down to
        this Euclidean norm before anything else; 0: no scaling.
      momentum_dtype: Type in which the mean of gradients is kept. None: the type of the
        parameters.

    Source: ``torch.optim.AdamW`` with one group per parameter. The decay is scaled by
    the group's learning rate, so the head decays ten times faster.
    """

    def decay(updates: Any, params: Any) -> Any:
        return jax.tree.map(
            lambda u, p, rule: u + weight_decay * rule.decay_multiplier * p,
            updates,
            params,
            assign(params, rules),
        )

    def multiply(updates: Any, params: Any) -> Any:
        claimed = assign(params, rules)
        return jax.tree.map(lambda u, rule: u * rule.lr_multiplier, updates, claimed)

    clip = optax.clip_by_global_norm(max_gradient_norm)
    chain = optax.chain(
        clip if max_gradient_norm else optax.identity(),
        _scale_by_adam(beta1, beta2, epsilon, momentum_dtype),
        optax.stateless(decay),
        optax.stateless(multiply),
        optax.scale_by_learning_rate(schedule),
    )

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        is_finite: Any = True,
        **extra_args: Any,
    ) -> tuple[Any, Any]:
        del extra_args
        new: Any
        updates, new = chain.update(updates, state, params, is_finite=is_finite)
        # Adam has kept its own.
        return updates, tuple(
            part if isinstance(part, optax.ScaleByAdamState) else kept
            for part, kept in zip(new, keep(is_finite, new, state), strict=True)
        )

    return optax.GradientTransformationExtraArgs(chain.init, update)


def keep(is_finite: Any, new: Any, old: Any) -> Any:
    """Return the new tree where a step is finite, else the old one."""
    return jax.tree.map(lambda n, o: jnp.where(is_finite, n, o), new, old)


def _scale_by_adam(
    beta1: float, beta2: float, epsilon: float, momentum_dtype: str | None
) -> optax.GradientTransformationExtraArgs:
    """Return Adam's direction, with PyTorch's accuracy in float32.

    Differs: from `optax.scale_by_adam`, which computes 1 - beta2^t in float32: at the
    first step that is 1 - 0.999 with a relative error of 1.3e-5, half of which every
    parameter's step inherits. PyTorch has float64 there.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(lambda p: jnp.zeros_like(p, momentum_dtype), params),
            nu=zeros,
        )

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        is_finite: Any = True,
        **extra_args: Any,
    ) -> tuple[Any, optax.ScaleByAdamState]:
        del params, extra_args
        gradients = updates
        count: Any = optax.safe_increment(state.count)
        mean = jax.tree.map(
            lambda m, g: beta1 * m.astype(g.dtype) + (1 - beta1) * g,
            state.mu,
            gradients,
        )
        square = jax.tree.map(
            lambda v, g: beta2 * v + (1 - beta2) * jnp.square(g), state.nu, gradients
        )
        stored = jax.tree.map(lambda new, old: new.astype(old.dtype), mean, state.mu)
        stored = keep(is_finite, stored, state.mu)
        square = keep(is_finite, square, state.nu)
        # A parameter moves by the moment that is stored. Otherwise XLA would compute
        # the moment again from the old moments, and copy these first, because the new
        # moments overwrite them.
        mean = jax.tree.map(lambda m, s: s if s.dtype == m.dtype else m, mean, stored)
        first, second = _one_minus_power(beta1, count), _one_minus_power(beta2, count)
        directions = jax.tree.map(
            lambda m, v: (m / first) / (jnp.sqrt(v / second) + epsilon), mean, square
        )
        count = keep(is_finite, count, state.count)
        return directions, optax.ScaleByAdamState(count=count, mu=stored, nu=square)

    return optax.GradientTransformationExtraArgs(init, update)


def _one_minus_power(beta: float, count: Int[Array, ""]) -> Float[Array, ""] | float:
    """Return 1 - beta^count without the cancellation where beta is near 1."""
    return -jnp.expm1(count * math.log(beta)) if beta else 1.0
