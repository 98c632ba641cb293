"""Mixup and cutmix: each image of a group is mixed with another, and so are the labels.

A group is a number n of consecutive images of a batch. All images of a group are mixed
in the same way, image i with image n - 1 - i. In timm's ``mode="batch"`` a group is the
batch that one process loads: 128 images in the published recipe.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from segnext_jax.ops.erasing import inside


class Mixing(flax.struct.PyTreeNode):
    """How each group is mixed.

    Attributes:
      share: Share of an image's own label, [groups].
      is_cutmix: Whether a box of the other image is put in, [groups]; else the two
        images are blended, with ``share``.
      boxes: (top, bottom, left, right) of the box, [groups, 4].
    """

    share: Any
    is_cutmix: Any
    boxes: Any


def draw_mixing(
    key: PRNGKeyArray,
    num_groups: int,
    size: tuple[int, int],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_probability: float,
) -> Mixing:
    """Draw how groups are mixed.

    The share is drawn from Beta(alpha, alpha). In cutmix the box has the area
    1 - share of the image before it is cut at the edges. The share of a label is then
    the share of the pixels outside the box that is left.

    Args:
      key: The key of all draws.
      num_groups: Number of groups.
      size: (height, width) of images.
      mixup_alpha: Both parameters of mixup's Beta distribution; 0: cutmix alone.
      cutmix_alpha: Both parameters of cutmix's Beta distribution; 0: mixup alone. If
        both alphas are 0, nothing is mixed.
      switch_probability: Probability of cutmix, where both alphas are above 0.
    """
    mixup_key, cutmix_key, switch_key, *place_keys = jax.random.split(key, 5)
    shape = (num_groups,)
    if mixup_alpha and cutmix_alpha:
        is_cutmix = jax.random.bernoulli(switch_key, switch_probability, shape)
    else:
        is_cutmix = jnp.full(shape, cutmix_alpha > 0)
    share = jnp.ones(shape)
    if mixup_alpha:
        share = jax.random.beta(mixup_key, mixup_alpha, mixup_alpha, shape)
    boxes = jnp.zeros((num_groups, 4), jnp.int32)
    if cutmix_alpha:
        drawn = jax.random.beta(cutmix_key, cutmix_alpha, cutmix_alpha, shape)
        centres = [
            jax.random.randint(place_key, shape, 0, side, jnp.int32)
            for place_key, side in zip(place_keys, size, strict=True)
        ]
        boxes = cutmix_boxes(drawn, jnp.stack(centres, axis=1), size)
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        left = 1 - area / (size[0] * size[1])
        share = jnp.where(is_cutmix, left, share)
    return Mixing(share=share, is_cutmix=is_cutmix, boxes=boxes)


def cutmix_boxes(
    share: Float[Array, " groups"],
    centres: Int[Array, "groups 2"],
    size: tuple[int, int],
) -> Int[Array, "groups 4"]:
    """Return boxes (top, bottom, left, right) of area 1 - share, cut at the edges.

    Args:
      share: Share of the image that the box leaves.
      centres: (row, column) of the middle.
      size: (height, width) of the image.
    """
    ratio = jnp.sqrt(1 - share)
    sides = []
    for axis, length in enumerate(size):
        half = (length * ratio).astype(jnp.int32) // 2
        centre = centres[:, axis]
        sides += [jnp.clip(centre - half, 0, length)]
        sides += [jnp.clip(centre + half, 0, length)]
    return jnp.stack(sides, axis=1)


def mix_images(
    images: UInt8[Array, "batch height width 3"], mixing: Mixing
) -> Float[Array, "batch height width 3"]:
    """Return mixed images, float32 that holds integers in 0..255.

    Source: ``FastCollateMixup`` of timm 0.4.12, which rounds to 8 bits, too.
    """
    num_groups = mixing.share.shape[0]
    groups = images.reshape(num_groups, -1, *images.shape[1:])
    # Bytes first: a group may lie on several devices, which exchange the others.
    others = groups[:, ::-1].astype(jnp.float32)
    groups = groups.astype(jnp.float32)
    share = mixing.share[:, None, None, None, None]
    # Half to the even number, as NumPy's rint.
    blended = jnp.rint(groups * share + others * (1 - share))
    in_box = inside(mixing.boxes, images.shape[1:3])[:, None, :, :, None]
    is_cutmix = mixing.is_cutmix[:, None, None, None, None]
    mixed = jnp.where(is_cutmix, jnp.where(in_box, others, groups), blended)
    return mixed.reshape(images.shape)


def mix_labels(
    labels: Int[Array, " batch"],
    mixing: Mixing,
    num_classes: int,
    label_smoothing: float,
) -> Float[Array, "batch classes"]:
    """Return the target probabilities.

    With smoothing s and K classes, the class of a label has 1 - s + s/K, and the other
    classes have s/K. A mixed image has ``share`` times the probabilities of its own
    label plus 1 - ``share`` times those of the other image's label.

    Args:
      labels: Number of each image's class.
      mixing: As for the images.
      num_classes: K.
      label_smoothing: s.

    Source: ``mixup_target`` of timm 0.4.12.
    """
    others = labels.reshape(mixing.share.shape[0], -1)[:, ::-1].reshape(-1)
    share = jnp.repeat(mixing.share, labels.size // mixing.share.size)[:, None]
    own, other = (jax.nn.one_hot(each, num_classes) for each in (labels, others))
    mixed = share * own + (1 - share) * other
    return (1 - label_smoothing) * mixed + label_smoothing / num_classes
