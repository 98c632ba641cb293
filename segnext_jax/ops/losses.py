"""Losses of logits against label maps.

All losses are computed in float32 at least, because they sum 2^18 pixels and more.
Ignored pixels take no part, and a batch without a labelled pixel has loss and gradient
0. Under `jax.jit` over a mesh XLA sums over the whole sharded batch.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

Labels = Int[Array, "batch height width"] | UInt8[Array, "batch height width"]
ClassWeights = Sequence[float] | None


def cross_entropy(
    logits: Float[Array, "batch height width classes"],
    labels: Labels,
    *,
    ignore_label: int = 255,
    average: str = "all",
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
    is_kept: Bool[Array, "batch height width"] | None = None,
    divisor: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Return the mean softmax cross-entropy; ignored pixels contribute 0.

    With p = softmax(logits), label y, class weights w and smoothing s over C classes, a
    pixel contributes

        (1 - s) * w_y * -log p_y + s / C * sum_c w_c * -log p_c

    Args:
      logits: Scores before softmax, at the size of the labels.
      labels: Train ids in [0, classes), or ``ignore_label``. Other values are excluded
        by the input pipeline; here they would count as a class with probability 0.
      ignore_label: The id that takes no part.
      average: ``"all"`` divides by the number of all pixels, as the official code
        does; ``"valid"`` by the number of labelled pixels. Neither depends on weights.
      class_weights: One factor per class. None: 1.
      label_smoothing: s, in [0, 1).
      is_kept: Pixels that are not kept contribute 0 and are still divided by: see
        `hard_pixels`. None: all are.
      divisor: What is divided by instead, where ``labels`` are a part of a batch:
        `count` of the whole batch.

    Raises:
      ValueError: If ``average`` is neither "all" nor "valid".

    Source: ``CrossEntropyLoss`` (``avg_non_ignore=False``) in
    ``mmseg/models/losses/cross_entropy_loss.py`` of SegNeXt@c87bcae; smoothing and
    weights as in ``torch.nn.functional.cross_entropy``.
    """
    if divisor is None:
        divisor = count(labels, ignore_label=ignore_label, average=average)
    logits, is_label, is_valid = _prepare(logits, labels, ignore_label)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    # A comparison and a sum, not a gather: its gradient is a broadcast, not a scatter.
    score = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    values = (normaliser - score) * _weight_of_label(is_label, class_weights)
    if label_smoothing:
        weights = _as_weights(class_weights, logits)[None, None, None]
        others = jnp.mean((normaliser[..., None] - logits) * weights, axis=-1)
        values = (1 - label_smoothing) * values + label_smoothing * others
    if is_kept is not None:
        is_valid = is_valid & is_kept
    return jnp.sum(jnp.where(is_valid, values, 0)) / divisor


def focal(
    logits: Float[Array, "batch height width classes"],
    labels: Labels,
    *,
    ignore_label: int = 255,
    average: str = "all",
    gamma: float = 2.0,
    class_weights: ClassWeights = None,
    divisor: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Return the mean of ``-w_y (1 - p_y)^gamma log p_y`` with p = softmax(logits).

    Args:
      logits: Scores before softmax, at the size of the labels.
      labels: Train ids in [0, classes), or ``ignore_label``.
      ignore_label: The id that takes no part.
      average: See `cross_entropy`.
      gamma: 0 (cross-entropy), or at least 1: between them the gradient has a pole
        where p is 1.
      class_weights: One factor w per class. None: 1.
      divisor: See `cross_entropy`.

    Raises:
      ValueError: If ``average`` is neither "all" nor "valid".

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5,
    over the softmax that the network is trained and evaluated with.
    Differs: from ``focal_loss.py`` of mmsegmentation, which takes a sigmoid for each
    class.
    """
    if divisor is None:
        divisor = count(labels, ignore_label=ignore_label, average=average)
    logits, is_label, is_valid = _prepare(logits, labels, ignore_label)
    score = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    log_probability = score - jax.nn.logsumexp(logits, axis=-1)
    # Before the power, whose gradient at an ignored pixel would be NaN times 0.
    log_probability = jnp.where(is_valid, jnp.minimum(log_probability, 0), -1)
    # 1 - p without the cancellation near p = 1.
    modulation = (-jnp.expm1(log_probability)) ** gamma
    values = -modulation * log_probability * _weight_of_label(is_label, class_weights)
    return jnp.sum(jnp.where(is_valid, values, 0)) / divisor


def dice(
    logits: Float[Array, "batch height width classes"],
    labels: Labels,
    *,
    ignore_label: int = 255,
    smooth: float = 1.0,
) -> Float[Array, ""]:
    """Return 1 - the soft Dice coefficient, averaged over images and classes.

    With p = softmax(logits), y one-hot, sums over the labelled pixels of an image:

        1 - (2 sum p y + smooth) / (sum p^2 + sum y^2 + smooth)

    A class that an image does not hold is counted: its probabilities are pushed to 0.

    Args:
      logits: Scores before softmax, at the size of the labels.
      labels: Train ids in [0, classes), or ``ignore_label``.
      ignore_label: The id that takes no part.
      smooth: Greater than 0; it makes an image without labels cost 0.

    Source: Milletari et al., "V-Net", 2016; ``DiceLoss`` (exponent 2, smooth 1) in
    ``mmseg/models/losses/dice_loss.py`` of SegNeXt@c87bcae.
    Differs: there ignored pixels enter the denominator, as labels of the last class.
    """
    logits, is_label, is_valid = _prepare(logits, labels, ignore_label)
    is_valid = is_valid[..., None]
    probabilities = jnp.where(is_valid, jax.nn.softmax(logits), 0)
    is_label = is_label & is_valid
    pixels = (1, 2)
    overlap = jnp.sum(jnp.where(is_label, probabilities, 0), axis=pixels)
    size = jnp.sum(jnp.square(probabilities), axis=pixels)
    size = size + jnp.sum(is_label, axis=pixels).astype(size.dtype)
    return jnp.mean(1 - (2 * overlap + smooth) / (size + smooth))


def lovasz_softmax(
    logits: Float[Array, "batch height width classes"],
    labels: Labels,
    *,
    ignore_label: int = 255,
) -> Float[Array, ""]:
    """Return the Lovasz extension of 1 - IoU, averaged over the classes present.

    For a class with errors e_i = |y_i - p_i|, sorted falling over all labelled pixels
    of the batch, and J_i = 1 - IoU when the first i pixels are wrong:

        sum_i e_i (J_i - J_{i-1})

    Each class sorts all pixels of the batch (over a mesh: on every device).

    Args:
      logits: Scores before softmax, at the size of the labels.
      labels: Train ids in [0, classes), or ``ignore_label``.
      ignore_label: The id that takes no part.

    Source: Berman et al., "The Lovasz-softmax loss", CVPR 2018; ``LovaszLoss``
    (``classes='present'``, ``per_image=False``) in
    ``mmseg/models/losses/lovasz_loss.py`` of SegNeXt@c87bcae.
    """
    logits, is_label, is_valid = _prepare(logits, labels, ignore_label)
    num_classes = logits.shape[-1]
    probabilities = jax.nn.softmax(logits).reshape(-1, num_classes)
    is_label = is_label.reshape(-1, num_classes)
    is_valid = is_valid.reshape(-1)

    def of_class(column: tuple[Array, Array]) -> tuple[Array, Array]:
        probability, is_class = column
        is_class = is_class & is_valid
        errors = jnp.where(is_class, 1 - probability, probability)
        errors = jnp.where(is_valid, errors, 0)
        # Constant between two orders: no gradient passes through the sort.
        weights = _lovasz_weights(lax.stop_gradient(errors), is_class, is_valid)
        return jnp.sum(errors * weights), jnp.any(is_class)

    # One class at a time: the sort needs several arrays of its size.
    values, is_present = lax.map(of_class, (probabilities.T, is_label.T))
    total = jnp.sum(jnp.where(is_present, values, 0))
    return total / jnp.maximum(jnp.sum(is_present), 1)


def _lovasz_weights(
    errors: Float[Array, " pixels"],
    is_class: Bool[Array, " pixels"],
    is_valid: Bool[Array, " pixels"],
) -> Float[Array, " pixels"]:
    """Return J_i - J_{i-1} of each pixel; 0 where it is not valid."""
    index = jnp.arange(errors.size, dtype=jnp.int32)
    # Falling errors, those of ignored pixels last.
    key = jnp.where(is_valid, -errors, 1)
    _, is_class, index = lax.sort((key, is_class, index), num_keys=1)
    num_class = jnp.sum(is_class)
    missed = num_class - jnp.cumsum(is_class)
    union = num_class + jnp.cumsum(~is_class)
    # The difference in closed form, where that of two quotients near 1 would cancel:
    # a pixel of the class leaves the intersection, another one joins the union.
    missed, union = missed.astype(errors.dtype), union.astype(errors.dtype)
    before = jnp.maximum(union - 1, 1)
    steps = jnp.where(is_class, 1 / jnp.maximum(union, 1), missed / (union * before))
    steps = jnp.where(num_class > 0, steps, 0)
    weights = jnp.zeros_like(errors).at[index].set(steps, unique_indices=True)
    return jnp.where(is_valid, weights, 0)


def hard_pixels(
    logits: Float[Array, "batch height width classes"],
    labels: Labels,
    *,
    ignore_label: int = 255,
    threshold: float = 0.7,
    min_kept: int = 100_000,
) -> Bool[Array, "batch height width"]:
    """Tell which pixels online hard example mining (OHEM) keeps.

    OHEM keeps the labelled pixels whose label has a probability below the threshold. If
    these are fewer than ``batch * min_kept``, it keeps ``batch * min_kept`` pixels with
    the lowest probabilities. A pixel as probable as the first one after these is not
    kept, nor is the most probable pixel of all.

    Args:
      logits: Scores before softmax, at the size of the labels.
      labels: Train ids in [0, classes), or ``ignore_label``.
      ignore_label: The id that takes no part.
      threshold: Probability in [0, 1]; 0 keeps the ``min_kept`` hardest alone.
      min_kept: Pixels per image, over the whole batch.

    Source: ``OHEMPixelSampler`` in ``mmseg/core/seg/sampler/ohem_pixel_sampler.py`` of
    SegNeXt@c87bcae.
    """
    logits = lax.stop_gradient(logits)
    logits, is_label, is_valid = _prepare(logits, labels, ignore_label)
    score = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    probability = jnp.exp(score - jax.nn.logsumexp(logits, axis=-1))
    num_valid = jnp.sum(is_valid)
    rank = jnp.clip(labels.shape[0] * min_kept, 0, jnp.maximum(num_valid - 1, 0))
    lowest = _order_statistic(probability, is_valid, rank)
    return is_valid & (probability < jnp.maximum(lowest, threshold))


def _order_statistic(
    values: Float[Array, "*dims"], is_counted: Bool[Array, "*dims"], rank: Array
) -> Float[Array, ""]:
    """Return the value that has ``rank`` smaller ones among those counted.

    The function bisects the bits, which order non-negative floats as integers. Counts
    add up over a mesh; a sort would gather all pixels on every device. If no value is
    counted, the result is arbitrary.
    """
    num_bits = jnp.finfo(values.dtype).bits
    integer = jnp.dtype(f"int{num_bits}")
    bits = lax.bitcast_convert_type(values, integer)

    def decide(i: Array, found: Array) -> Array:
        candidate = found | (
            jnp.ones((), integer) << (num_bits - 2 - i).astype(integer)
        )
        num_smaller = jnp.sum(is_counted & (bits < candidate))
        return jnp.where(num_smaller <= rank, candidate, found)

    found = lax.fori_loop(0, num_bits - 1, decide, jnp.zeros((), integer))
    return lax.bitcast_convert_type(found, values.dtype)


def count(
    labels: Labels, *, ignore_label: int = 255, average: str = "all"
) -> Float[Array, ""]:
    """Return the number of pixels that a mean divides by, at least 1.

    Args:
      labels: Train ids, or ``ignore_label``.
      ignore_label: The id that takes no part.
      average: ``"all"``: every pixel; ``"valid"``: those with a label.

    Raises:
      ValueError: If ``average`` is neither "all" nor "valid".
    """
    if average not in ("all", "valid"):
        raise ValueError(f"average must be 'all' or 'valid': got {average!r}.")
    float_type = jnp.result_type(float)
    if average == "all":
        return jnp.asarray(labels.size, float_type)
    num_valid = jnp.sum(labels != ignore_label)
    return jnp.maximum(num_valid, 1).astype(float_type)


def _prepare(
    logits: Float[Array, "batch height width classes"],
    labels: Labels,
    ignore_label: int,
) -> tuple[
    Float[Array, "batch height width classes"],
    Bool[Array, "batch height width classes"],
    Bool[Array, "batch height width"],
]:
    """Return the logits in the working type, one-hot labels, and which are labelled."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    is_label = labels.astype(jnp.int32)[..., None] == classes[None, None, None]
    return logits, is_label, labels != ignore_label


def _as_weights(class_weights: ClassWeights, logits: Array) -> Float[Array, " classes"]:
    if class_weights is None:
        return jnp.ones(logits.shape[-1:], logits.dtype)
    return jnp.asarray(class_weights, logits.dtype)


def _weight_of_label(is_label: Array, class_weights: ClassWeights) -> Array | float:
    if class_weights is None:
        return 1.0
    weights = jnp.asarray(class_weights, jnp.result_type(float))[None, None, None]
    return jnp.sum(jnp.where(is_label, weights, 0), axis=-1)
