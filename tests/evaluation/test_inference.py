"""Inference against the recorded numbers, and the official steps taken in torch."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.evaluation.batch import Batch, FittedSize
from segnext_jax.evaluation.inference import Inference, _enlargement
from segnext_jax.models.segnext import Variant
from segnext_jax.pipeline.fitting import Fitting

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# Sizes that all differ, but for what GroupNorm asks for: 32 channels.
REDUCED = Variant((8, 16, 24, 40), (1, 1, 1, 1), (3, 2, 2, 1), 0.0, 32, 5)


def make_batch(originals, fitting):
    """A batch of images of any size, fitted; all rows are of this process."""
    sizes = tuple(image.shape[:2] for image in originals)
    fitted = [fitting.images(image) for image in originals]
    return Batch(
        images=tuple(np.stack(rows) for rows in zip(*fitted, strict=True)),
        fitted_sizes=tuple(zip(*map(fitting.sizes, sizes), strict=True)),
        image_sizes=sizes,
        first_row=0,
    )


def photograph(height, width, seed=0):
    generator = np.random.default_rng([seed, height, width])
    noise = generator.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def infer(batch, logits_fn, **options):
    """Return labels and probabilities, computed in float64."""
    network = Inference(logits_fn=logits_fn, mean=MEAN, std=STD, **options)
    with jax.enable_x64(True):
        found = network.probability_maps(batch)
        labels = network.label_maps(batch)
    for (with_probabilities, _), alone in zip(found, labels, strict=True):
        np.testing.assert_array_equal(with_probabilities, alone)
    return found


def as_logits_fn(pair, bases, digits=4):
    """The network in torch, as a function of arrays; what it has seen, it remembers.

    Inputs are rounded: normalisation in float32 differs in the last bit between JAX and
    NumPy, and what follows is to be compared more closely than that.
    """
    known = {}

    def logits_fn(inputs):
        inputs = np.round(np.asarray(inputs, np.float64), digits)
        key = inputs.shape, inputs.tobytes()
        if key not in known:
            with pair.torch.no_grad():
                rows = np.repeat(bases, len(inputs), axis=0)
                known[key] = pair.run_theirs(inputs, rows)[-1].numpy()
        return jnp.asarray(known[key])

    return logits_fn


@pytest.fixture(scope="module")
def recorded(reference):
    return np.load(reference / "aug.npz")


@pytest.fixture(scope="module")
def official(make_pair, recorded):
    """SegNeXt-T in torch, equal to the official one, with the recorded bases."""
    pair = make_pair("tiny", num_classes=19)
    return as_logits_fn(pair, recorded["infer/bases"], digits=12)


@pytest.mark.parametrize(
    ("name", "ratios", "use_flip"),
    [("whole", (1.0,), False), ("ms_flip", (0.75, 1.0, 1.25), True)],
)
def test_equals_the_recorded_probabilities(recorded, official, name, ratios, use_flip):
    image = np.ascontiguousarray(recorded["image"][..., ::-1])
    fitting = Fitting(scale=(140, 60), ratios=ratios, multiple=32)
    sizes = [list(sizes.outer) for sizes in fitting.sizes(image.shape[:2])]
    notes = json.loads(str(recorded["meta"]))["notes"][f"infer/{name}"]
    wanted_sizes = notes["net_input_shapes"]
    assert wanted_sizes[:: len(wanted_sizes) // len(sizes)] == sizes

    ((labels, probabilities),) = infer(
        make_batch([image], fitting), official, use_flip=use_flip, tile_bytes=1
    )
    sample = probabilities.reshape(-1, 19).T[:, ::13]
    # Images are normalised in float32.
    np.testing.assert_allclose(sample, recorded[f"infer/{name}/prob_sample"], atol=1e-6)
    np.testing.assert_array_equal(labels, recorded[f"infer/{name}/pred"])


@pytest.mark.parametrize(
    ("size", "stride", "name"),
    [((100, 156), 31, "logits_sample"), ((45, 70), 13, "logits_ori_sample")],
)
def test_windows_equal_the_recorded_logits(recorded, official, size, stride, name):
    from segnext_jax.evaluation import scoring

    inputs = recorded["infer/slide/input"].transpose(1, 2, 0)
    network = Inference(
        official, (0.0,) * 3, (1.0,) * 3, (64, 64), (48, 48), tile_bytes=2**23
    )
    with jax.enable_x64(True):
        outer = inputs.shape[:2]
        batch = Batch(
            # The pixels are given, normalised.
            images=(np.zeros((1, *outer, 3), np.uint8),),
            fitted_sizes=((FittedSize(outer, outer),),),
            image_sizes=(size,),
            first_row=0,
        )
        view = network._view(
            jnp.asarray(inputs[None]), batch, batch.fitted_sizes[0], False
        )
        tiles = [
            (jnp.asarray(axis.indices[:, 0]), jnp.asarray(axis.weights[:, 0]))
            for axis in network._matrices(view, batch)
        ]
        tile = np.asarray(scoring.resample(view.logits, *tiles))[0]
        logits = tile[: size[0], : size[1]]
    sample = logits.reshape(-1, 19).T[:, ::stride]
    np.testing.assert_allclose(
        sample, recorded[f"infer/slide/{name}"], rtol=0, atol=1e-10
    )


def official_steps(torch, logits_fn, image, fitting, window, stride, use_flip):
    """What the official code does, step by step, at full size."""
    functional = torch.nn.functional

    def resize(scores, size):
        return functional.interpolate(
            scores, size=size, mode="bilinear", align_corners=False
        )

    def encode_decode(inputs):
        logits = np.asarray(logits_fn(inputs))
        logits = torch.tensor(logits.transpose(0, 3, 1, 2))
        return resize(logits, inputs.shape[1:3])

    def slide(inputs):
        height, width = inputs.shape[1:3]
        total, count = 0, torch.zeros((1, 1, height, width))
        rows = max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1
        columns = max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1
        for i in range(rows):
            for j in range(columns):
                bottom = min(i * stride[0] + window[0], height)
                right = min(j * stride[1] + window[1], width)
                top, left = max(bottom - window[0], 0), max(right - window[1], 0)
                scores = encode_decode(inputs[:, top:bottom, left:right])
                margins = (left, width - right, top, height - bottom)
                total = total + functional.pad(scores, margins)
                count[..., top:bottom, left:right] += 1
        assert (count > 0).all()
        return total / count

    size = image.shape[:2]
    probabilities = []
    for ratio in fitting.ratios:
        if fitting.scale is None:
            long, short = (int(s * ratio + 0.5) for s in (max(size), min(size)))
        else:
            long, short = (int(s * ratio) for s in fitting.scale)
        factor = min(long / max(size), short / min(size))
        height, width = (int(side * factor + 0.5) for side in size)
        resized = cv2.resize(image, (width, height))
        multiple = fitting.multiple
        outer = tuple(-(-s // multiple) * multiple for s in (height, width))
        if fitting.alignment == "resize":
            resized = cv2.resize(resized, outer[::-1])
            height, width = outer
        for is_flipped in (False, True)[: 1 + use_flip]:
            view = resized[:, ::-1] if is_flipped else resized
            inputs = (view.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
            margins = ((0, outer[0] - height), (0, outer[1] - width), (0, 0))
            inputs = np.pad(inputs, margins)[None]
            scores = slide(inputs) if window else encode_decode(inputs)
            scores = resize(scores[..., :height, :width], size)
            scores = torch.softmax(scores, dim=1)[0]
            probabilities.append(scores.flip(-1) if is_flipped else scores)
    return torch.stack(probabilities).mean(0).permute(1, 2, 0).numpy()


CASES = {
    "native": (Fitting(), None, None, False),
    "to_multiple": (Fitting((120, 60), multiple=32), None, None, False),
    "padded": (Fitting((120, 60), (1.0,), 32, "pad"), None, None, False),
    "scales": (Fitting((120, 60), (0.5, 1.0, 1.75), 32), None, None, True),
    "padded_scales": (Fitting(None, (0.75, 1.25), 32, "pad"), None, None, True),
    "windows": (Fitting((150, 100)), (48, 64), (32, 41), False),
    "narrow_window": (Fitting(), (64, 32), (64, 20), True),
    "everything": (
        Fitting((120, 60), (0.5, 1.0), 16, "pad"),
        (40, 48),
        (27, 32),
        True,
    ),
}


@pytest.fixture(scope="module")
def reduced(make_pair):
    return make_pair(REDUCED)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(45, 71), (67, 38)])
def test_equals_the_official_steps(reduced, case, size):
    fitting, window, stride, use_flip = CASES[case]
    bases = reduced.rule.bases_for(1, 32, 5)
    logits_fn = as_logits_fn(reduced, bases)
    image = photograph(*size)
    with jax.enable_x64(True):
        wanted = official_steps(
            reduced.torch, logits_fn, image, fitting, window, stride, use_flip
        )
    ((labels, given),) = infer(
        make_batch([image], fitting),
        logits_fn,
        window=window,
        stride=stride,
        use_flip=use_flip,
        tile_bytes=1,
    )
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-12)
    ordered = np.sort(wanted, axis=-1)
    is_clear = ordered[..., -1] - ordered[..., -2] > 1e-9
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(labels[is_clear], wanted.argmax(-1)[is_clear])


def test_our_network_in_windows_equals_theirs(reduced):
    """One size of windows for all scales: the network is compiled once."""
    fitting, window, stride = Fitting((96, 48), (1.0, 1.5)), (48, 48), (30, 41)
    bases = reduced.rule.bases_for(1, 32, 5).astype(np.float64)
    image = photograph(45, 71)
    model = reduced.ours.clone(dtype=jnp.float64, param_dtype=jnp.float64)
    num_compiled = []

    @jax.jit
    def apply(variables, inputs):
        num_compiled.append(inputs.shape)
        return model.apply(variables, inputs.astype(jnp.float64), jnp.asarray(bases))

    with jax.enable_x64(True):
        wanted = official_steps(
            reduced.torch,
            as_logits_fn(reduced, bases, digits=12),
            image,
            fitting,
            window,
            stride,
            True,
        )
        variables = reduced.variables("float64")
    ((_, given),) = infer(
        make_batch([image], fitting),
        lambda inputs: apply(variables, inputs),
        window=window,
        stride=stride,
        use_flip=True,
    )
    # Images are normalised in float32.
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)
    assert num_compiled == [(1, 48, 48, 3)]


@jax.jit
def box_logits(inputs):
    """A network of no weights: means of 8x8 boxes, of some products of colours."""
    batch, height, width, _ = inputs.shape
    margins = [(0, 0), (0, -height % 8), (0, -width % 8), (0, 0)]
    padded = jnp.pad(inputs, margins, mode="edge")
    boxes = padded.reshape(batch, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8, 3)
    means = boxes.mean(axis=(2, 4))
    return jnp.concatenate([means, means[..., :1] * means[..., 1:]], axis=-1)


def test_tiles_of_any_size_give_the_same():
    batch = make_batch([photograph(45, 171)], Fitting((180, 48), multiple=16))
    options = {"window": (40, 48), "stride": (27, 32), "use_flip": True}
    ((_, whole),) = infer(batch, box_logits, tile_bytes=5 * 4 * 192**2, **options)
    for side in (1, 64, 96):
        tile_bytes = 5 * 4 * side**2
        ((_, given),) = infer(batch, box_logits, tile_bytes=tile_bytes, **options)
        np.testing.assert_allclose(given, whole, rtol=0, atol=2e-7)


def test_images_of_many_sizes_share_a_batch_without_mixing():
    sizes = [(45, 71), (46, 72), (90, 142), (23, 36)]
    fitting = Fitting((120, 60), multiple=32)
    images = [photograph(*size) for size in sizes]
    options = {"tile_bytes": 1, "use_flip": True}
    together = infer(make_batch(images, fitting), box_logits, **options)
    for image, (labels, given) in zip(images, together, strict=True):
        ((alone_labels, alone),) = infer(
            make_batch([image], fitting), box_logits, **options
        )
        assert labels.shape == image.shape[:2]
        np.testing.assert_array_equal(labels, alone_labels)
        np.testing.assert_allclose(given, alone, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("fitting", "factor"),
    [
        (Fitting(multiple=8, alignment="pad"), 8),
        # Stretched: 45x71 to 48x72.
        (Fitting(multiple=8), None),
        (Fitting((120, 60), multiple=8, alignment="pad"), None),
        (Fitting(ratios=(1.0, 1.5), multiple=8, alignment="pad"), None),
    ],
)
def test_images_of_their_own_size_need_no_matrices(fitting, factor):
    batch = make_batch([photograph(45, 71), photograph(45, 71, seed=1)], fitting)
    network = Inference(box_logits, MEAN, STD)
    assert _enlargement(network._views(batch)) == factor
    # Compares labels by either way with those beside probabilities.
    infer(batch, box_logits)


def test_windows_need_matrices():
    batch = make_batch([photograph(45, 71)], Fitting(multiple=8, alignment="pad"))
    for window, factor in (((48, 72), 8), ((48, 64), None)):
        network = Inference(box_logits, MEAN, STD, window=window, stride=(24, 24))
        assert _enlargement(network._views(batch)) == factor
        infer(batch, box_logits, window=window, stride=(24, 24))


def test_number_of_programs_depends_on_input_sizes_not_on_image_sizes():
    from segnext_jax.evaluation import scoring

    fitting = Fitting((120, 60), multiple=32)
    network = Inference(box_logits, MEAN, STD, tile_bytes=1)
    programs = []
    for size in [(45, 71), (47, 72), (52, 80), (55, 85), (58, 90), (60, 93)]:
        network.label_maps(make_batch([photograph(*size)], fitting))
        programs.append(scoring.resampled_labels._cache_size())
    assert len(set(programs)) == 1


def test_windows_that_leave_gaps_are_refused():
    with pytest.raises(ValueError, match=r"stride \(8, 9\), window \(8, 8\)"):
        Inference(box_logits, MEAN, STD, window=(8, 8), stride=(8, 9))
    with pytest.raises(ValueError, match="stride None"):
        Inference(box_logits, MEAN, STD, window=(8, 8))
