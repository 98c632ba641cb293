"""AdamW with the official parameter groups, as a table of rules."""

import collections
import dataclasses
import re
from typing import Any

import jax
import optax
from flax import traverse_util

from segnext_jax.training.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Rule:
    """One group of parameters.

    Attributes:
      name: Shown in logs.
      pattern: Regular expression that matches the whole path ``a/b/c``.
      lr_multiplier: Factor on the learning rate.
      decay_multiplier: Factor on the weight decay.
    """

    name: str
    pattern: str
    lr_multiplier: float = 1.0
    decay_multiplier: float = 1.0


def official_rules(
    head_lr_multiplier: float = 10.0, norm_decay_multiplier: float = 0.0
) -> tuple[Rule, ...]:
    """Return the groups of the official configs; the first rule that matches wins.

    Source: ``paramwise_cfg.custom_keys`` (``head``, ``norm``; ``pos_block`` matches
    nothing) in the official configs of SegNeXt@c87bcae, read by mmcv's
    ``DefaultOptimizerConstructor`` as substrings of the parameter's name. What follows
    from that: the head's GroupNorms and biases decay, and so do the stem's BatchNorms,
    whose names hold no "norm", the encoder's biases and its layer scales.
    """
    return (
        Rule("head", r"decode_head/.*", lr_multiplier=head_lr_multiplier),
        Rule("norm", r".*norm.*", decay_multiplier=norm_decay_multiplier),
        Rule("encoder", r"backbone/.*"),
    )


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
        f"learning rate x{rule.lr_multiplier:g}, "
        f"weight decay x{rule.decay_multiplier:g}"
        for rule in rules
    ]


def adamw(
    schedule: Schedule,
    *,
    rules: tuple[Rule, ...],
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """Return AdamW whose learning rate and decay follow ``rules``.

    For a parameter p of rule r, with Adam's direction u:

        rate = schedule(step) * r.lr_multiplier
        decay = weight_decay * r.decay_multiplier
        p <- p - rate * (u + decay * p)

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

    return optax.chain(
        optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon, eps_root=0.0),
        optax.stateless(decay),
        optax.stateless(multiply),
        optax.scale_by_learning_rate(schedule),
    )
