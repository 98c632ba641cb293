"""Each loss against a plain PyTorch statement of its formula: value and gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import losses, sharding

NUM_CLASSES = 4
WEIGHTS = (0.5, 2.0, 1.0, 3.0)
LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "dice": losses.dice,
    "lovasz_softmax": losses.lovasz_softmax,
}
# Compiled whole: each operation by itself would be compiled, too.
SLOPES = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in LOSSES.items()}


def example(dtype=np.float64, batch=2):
    """Class 2 is absent, pixels of the first image are ignored."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (batch, 5, 7, NUM_CLASSES)).astype(dtype)
    labels = rng.choice([0, 1, 3], (batch, 5, 7)).astype(np.uint8)
    labels[0, :2] = 255
    return logits, labels


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the statements are in torch")


def flat(torch, logits, labels):
    """Log-probabilities [pixels, classes] and labels of the labelled pixels."""
    is_valid = labels != 255
    log_p = torch.log_softmax(logits, -1)[is_valid]
    return log_p, labels[is_valid].long()


def their_cross_entropy(torch, logits, labels, average="all", **options):
    value = torch.nn.functional.cross_entropy(
        logits.permute(0, 3, 1, 2),
        labels.long(),
        ignore_index=255,
        reduction="sum",
        **options,
    )
    return value / (labels.numel() if average == "all" else (labels != 255).sum())


def their_focal(torch, logits, labels, gamma=2.0, weights=(1, 1, 1, 1)):
    log_p, label = flat(torch, logits, labels)
    log_p = log_p.gather(1, label[:, None])[:, 0]
    weight = torch.tensor(weights, dtype=log_p.dtype)[label]
    return (-weight * (1 - log_p.exp()) ** gamma * log_p).sum() / labels.numel()


def their_dice(torch, logits, labels, smooth=1.0):
    values = []
    for scores, truth in zip(logits, labels, strict=True):
        log_p, label = flat(torch, scores, truth)
        for index in range(NUM_CLASSES):
            p, y = log_p[:, index].exp(), (label == index).to(log_p.dtype)
            overlap, size = (p * y).sum(), (p**2).sum() + (y**2).sum()
            values.append(1 - (2 * overlap + smooth) / (size + smooth))
    return sum(values) / len(values)


def their_lovasz(torch, logits, labels):
    """The extension by its definition: IoU of each set of wrong pixels, counted."""
    log_p, label = flat(torch, logits, labels)
    values = []
    for index in label.unique().tolist():
        is_class = label == index
        errors = (is_class.to(log_p.dtype) - log_p[:, index].exp()).abs()
        order = errors.detach().argsort(descending=True)
        wrong = torch.zeros_like(is_class)
        value, before = 0.0, 0.0
        for pixel in order:
            wrong[pixel] = True
            predicted = is_class ^ wrong
            union = (is_class | predicted).sum()
            after = 1 - (is_class & predicted).sum().item() / union.item()
            value = value + errors[pixel] * (after - before)
            before = after
        values.append(value)
    return sum(values) / len(values)


CASES = {
    "cross-entropy": (losses.cross_entropy, their_cross_entropy, {}, {}),
    "cross-entropy over labelled": (
        losses.cross_entropy,
        their_cross_entropy,
        {"average": "valid"},
        {"average": "valid"},
    ),
    "focal": (losses.focal, their_focal, {}, {}),
    "focal 3.5, weighted": (
        losses.focal,
        their_focal,
        {"gamma": 3.5, "class_weights": WEIGHTS},
        {"gamma": 3.5, "weights": WEIGHTS},
    ),
    "dice": (losses.dice, their_dice, {}, {}),
    "dice 0.1": (losses.dice, their_dice, {"smooth": 0.1}, {"smooth": 0.1}),
    "lovasz": (losses.lovasz_softmax, their_lovasz, {}, {}),
}


def assert_equals(torch, ours, theirs, logits, labels):
    """Compare values and gradients in float64."""
    tensor = torch.tensor(logits, requires_grad=True)
    wanted = theirs(tensor, torch.tensor(labels))
    wanted.backward()
    with jax.enable_x64(True):
        value, gradient = jax.jit(jax.value_and_grad(ours))(logits, labels)
    assert float(value) == pytest.approx(wanted.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_the_formula(torch, case):
    ours, theirs, our_options, their_options = CASES[case]
    assert_equals(
        torch,
        lambda x, y: ours(x, y, **our_options),
        lambda x, y: theirs(torch, x, y, **their_options),
        *example(),
    )


@pytest.mark.parametrize(
    "smoothing, weights", [(0.1, None), (0.0, WEIGHTS), (0.2, WEIGHTS)]
)
def test_smoothing_and_class_weights_equal_pytorch(torch, smoothing, weights):
    as_tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert_equals(
        torch,
        lambda x, y: losses.cross_entropy(
            x, y, label_smoothing=smoothing, class_weights=weights
        ),
        lambda x, y: their_cross_entropy(
            torch, x, y, label_smoothing=smoothing, weight=as_tensor
        ),
        *example(),
    )


def their_hard_pixels(torch, logits, labels, threshold, min_kept):
    """OHEMPixelSampler.sample of mmsegmentation 0.24 for a threshold."""
    is_valid = labels != 255
    label = torch.where(is_valid, labels, 0).long()
    p = torch.softmax(logits, -1).gather(3, label[..., None])[..., 0]
    ordered = p[is_valid].sort()[0]
    limit = 0.0
    if len(ordered):
        limit = ordered[min(min_kept * len(labels), len(ordered) - 1)].item()
    return (p < max(limit, threshold)) & is_valid


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hard_pixels_are_those_of_the_official_sampler(torch, dtype):
    logits, labels = example(dtype)
    cases = list(itertools.product([0.0, 0.7], [1, 20, 1000]))

    @jax.jit
    def of_all_cases(logits, labels):
        return [
            losses.hard_pixels(logits, labels, threshold=threshold, min_kept=min_kept)
            for threshold, min_kept in cases
        ]

    with jax.enable_x64(dtype == np.float64):
        results = of_all_cases(logits, labels)
    for case, given in zip(cases, results, strict=True):
        wanted = their_hard_pixels(
            torch, torch.tensor(logits), torch.tensor(labels), *case
        )
        np.testing.assert_array_equal(given, wanted.numpy(), err_msg=f"{case}")
    assert results[0].sum() == 2


def test_pixels_that_are_not_kept_count_in_the_divisor_alone():
    @jax.jit
    def both(logits, labels):
        is_kept = losses.hard_pixels(logits, labels, threshold=0.0, min_kept=5)
        only = jnp.where(is_kept, labels, 255).astype(jnp.uint8)
        given = losses.cross_entropy(logits, labels, is_kept=is_kept)
        return given, losses.cross_entropy(logits, only)

    given, wanted = both(*example(np.float32))
    assert float(given) == float(wanted)


def test_no_labelled_pixel_is_hard():
    logits, labels = example(np.float32)
    labels = np.full_like(labels, 255)
    assert not jax.jit(losses.hard_pixels)(logits * 100, labels).any()


@pytest.mark.parametrize("name", LOSSES)
def test_no_labelled_pixel_gives_zero_and_no_gradient(name):
    logits, labels = example(np.float32)
    value, gradient = SLOPES[name](logits * 100, np.full_like(labels, 255))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing(name):
    logits, labels = example(np.float32)
    is_ignored = (labels == 255)[..., None]
    value, gradient = SLOPES[name](logits, labels)
    changed, _ = SLOPES[name](np.where(is_ignored, logits * -50 + 3, logits), labels)
    assert float(changed) == float(value)
    np.testing.assert_array_equal(np.where(is_ignored, gradient, 0), 0)


@pytest.mark.parametrize("name", LOSSES)
def test_large_bfloat16_logits_stay_finite_and_float32(name):
    logits, labels = example()
    value, gradient = SLOPES[name]((logits * 1e4).astype(jnp.bfloat16), labels)
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
    assert np.isfinite(np.float32(gradient)).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("average", ["all", "valid"])
def test_parts_add_up_to_the_whole_when_divided_by_its_count(name, average):
    """The parts hold different numbers of labelled pixels."""

    @jax.jit
    def parts_and_whole(logits, labels):
        divisor = losses.count(labels, average=average)
        parts = [
            LOSSES[name](logits[i : i + 1], labels[i : i + 1], divisor=divisor)
            for i in range(2)
        ]
        return parts, LOSSES[name](logits, labels, average=average)

    with jax.enable_x64(True):
        parts, whole = parts_and_whole(*example())
    assert sum(map(float, parts)) == pytest.approx(float(whole), rel=1e-14)


def test_loss_of_a_sharded_batch_is_global():
    """Eight devices with different numbers of labelled pixels, and one."""
    logits, labels = map(jnp.asarray, example(np.float32, batch=8))

    @jax.jit
    def all_losses(logits, labels):
        is_kept = losses.hard_pixels(logits, labels, threshold=0.1, min_kept=3)
        values = [function(logits, labels) for function in LOSSES.values()]
        values.append(losses.cross_entropy(logits, labels, is_kept=is_kept))
        values.append(losses.cross_entropy(logits, labels, average="valid"))
        return jnp.stack(values), jax.grad(losses.lovasz_softmax)(logits, labels)

    placement = sharding.batch_sharding(sharding.make_mesh())
    spread = all_losses(*jax.device_put((logits, labels), placement))
    for ours, theirs in zip(spread, all_losses(logits, labels), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-9)


def test_unknown_average_is_refused():
    logits, labels = map(jnp.asarray, example(np.float32))
    with pytest.raises(ValueError, match="'all' or 'valid': got 'some'"):
        losses.cross_entropy(logits, labels, average="some")
