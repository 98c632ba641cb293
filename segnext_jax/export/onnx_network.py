"""SegNeXt in the operations of ONNX, as inference engines run it fastest.

The modules of `segnext_jax.models` are written for XLA, with channels last. Engines
keep channels before rows, have kernels for grouped convolutions, and join neighbours
that they know: ``x * (1 + erf(x / sqrt(2))) * 0.5`` to GELU, a bias to a convolution.
What is constant at inference is computed here: BatchNorms and layer scales become part
of the convolutions beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segnext_jax.export.onnx_nodes import Nodes
from segnext_jax.models.hamburger import NUM_GROUPS
from segnext_jax.models.mscan import STRIP_LENGTHS
from segnext_jax.models.normalization import BatchNorm
from segnext_jax.ops import nmf

NORM_EPSILON = 1e-5

# Parameters or statistics of a module: arrays and modules by name.
Tree = Mapping[str, Any]
# Factor and offset of each channel.
Affine = tuple[np.ndarray, np.ndarray]


def add_encoder(
    nodes: Nodes, images: str, params: Tree, stats: Tree, depths: Sequence[int]
) -> list[tuple[str, int]]:
    """Add MSCAN; return the normalised maps of its stages, and their channels.

    Args:
      nodes: The graph.
      images: Normalised RGB, [batch, 3, height, width].
      params: The parameters of the encoder.
      stats: Running statistics of the encoder.
      depths: Blocks of each stage.
    """
    outputs = []
    for stage, depth in enumerate(depths, start=1):
        name = f"patch_embed{stage}"
        with nodes.scope(name):
            images = _embed(nodes, images, params[name], stats[name])
        for index in range(depth):
            name = f"block{stage}_{index}"
            with nodes.scope(name):
                images = _block(nodes, images, params[name], stats[name])
        name = f"norm{stage}"
        with nodes.scope(name):
            images = _layer_norm(nodes, images, params[name])
        outputs.append((images, len(params[name]["scale"])))
    return outputs


def add_head(
    nodes: Nodes,
    features: Sequence[tuple[str, int]],
    params: Tree,
    bases: np.ndarray,
    num_steps: int,
) -> str:
    """Add the light Hamburger head; return the scores, [batch, classes, height, width].

    Args:
      nodes: The graph.
      features: Maps of the last three stages, at 1/8, 1/16 and 1/32 of the image, and
        their channels.
      params: The parameters of the head.
      bases: The bases that the NMF begins with, [channels, rank].
      num_steps: Steps of the NMF.
    """
    with nodes.scope("squeeze"):
        images = _squeeze(nodes, features, params["squeeze"])
    with nodes.scope("hamburger"):
        ham = params["hamburger"]
        hidden = _pointwise(nodes, images, **ham["ham_in"]["conv"])
        hidden = nodes.add("Relu", hidden)
        flat = nodes.add("Reshape", hidden, np.array([0, 0, -1]))
        kernel = ham["ham_out"]["conv"]["kernel"]
        with nodes.scope("nmf"), nodes.in_float32():
            flat = _nmf(nodes, nodes.cast(flat), bases, num_steps, kernel)
        flat = nodes.cast(flat)
        hidden = nodes.add("Reshape", flat, nodes.add("Shape", hidden))
        hidden = _group_norm(nodes, hidden, ham["ham_out"]["gn"])
        images = nodes.add("Relu", nodes.add("Add", images, hidden))
    with nodes.scope("align"):
        images = _pointwise(nodes, images, **params["align"]["conv"])
        images = nodes.add("Relu", _group_norm(nodes, images, params["align"]["gn"]))
    with nodes.scope("conv_seg"):
        return _pointwise(nodes, images, **params["conv_seg"])


def enlarge(nodes: Nodes, images: str, vertical: int, horizontal: int) -> str:
    """Add a bilinear resize by whole factors; see `segnext_jax.ops.resize`.

    Args:
      nodes: The graph.
      images: The name of a value of four dimensions.
      vertical: Factor of the third dimension.
      horizontal: Factor of the last dimension.
    """
    if vertical == horizontal == 1:
        return images
    scales = np.array([1.0, 1.0, vertical, horizontal])
    # Resize has its factors in float32 alone, whatever the type of the images.
    with nodes.in_float32():
        return nodes.add(
            "Resize",
            *(images, "", scales),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )


def channels_last(nodes: Nodes, images: str) -> str:
    """Add a transposition to [batch, height, width, channels]."""
    return nodes.add("Transpose", images, perm=[0, 2, 3, 1])


def enlarge_channels_last(nodes: Nodes, images: str, factor: int) -> str:
    """Add a resize whose result is [batch, height, width, channels].

    What comes after, over channels, is several times faster where these are last, and a
    transposition of the whole result is not: rows are made before, columns after. For
    engines the second resize is one of images [width, channels], enlarged downwards.
    """
    images = channels_last(nodes, enlarge(nodes, images, factor, 1))
    return enlarge(nodes, images, factor, 1)


def best_of_enlarged(nodes: Nodes, scores: str, factor: int) -> str:
    """Add the best class of each pixel of enlarged scores: [batch, height, width].

    No engine's resize is as fast as its product of matrices, and few find the best of
    channels before rows fast. So blocks of 2x2 places, with the places around them, are
    multiplied by the shares that these have in the block's pixels: [classes, 16] by
    [16, pixels], of which the best classes are put in place.

    Args:
      nodes: The graph.
      scores: Scores [batch, classes, height, width]; height and width are even.
      factor: How much larger the result is; even.
    """
    from onnx import TensorProto

    sizes = nodes.add("Shape", scores)
    blocks = scores
    for axis, dimension in ((2, 2), (4, 3)):
        size = nodes.add("Gather", sizes, np.array(dimension))
        first = nodes.add("Range", np.array(0), size, np.array(2))
        around = nodes.add(
            "Add", nodes.add("Unsqueeze", first, np.array([1])), np.arange(-1, 3)
        )
        last = nodes.add("Sub", size, np.array(1))
        inside = nodes.add("Clip", around, np.array(0), last)
        blocks = nodes.add("Gather", blocks, inside, axis=axis)
    # From [batch, classes, rows, 4, columns, 4], of rows and columns of blocks.
    blocks = nodes.add("Transpose", blocks, perm=[0, 2, 4, 1, 3, 5])
    classes = nodes.add("Gather", sizes, np.array([1]))
    shape = nodes.add("Concat", np.array([-1]), classes, np.array([16]), axis=0)
    blocks = _product(nodes, nodes.add("Reshape", blocks, shape), _shares(factor))
    labels = nodes.add("ArgMax", blocks, axis=1, keepdims=0)
    # A byte holds every class: data sets have 255 at most, see DatasetSpec.
    labels = nodes.add("Cast", labels, to=TensorProto.UINT8)

    size = nodes.add("Slice", sizes, np.array([2]), np.array([4]))
    counts = nodes.add("Div", size, np.array([2]))
    side = np.array([2 * factor] * 2)
    shape = nodes.add("Concat", np.array([-1]), counts, side, axis=0)
    labels = nodes.add("Reshape", labels, shape)
    labels = nodes.add("Transpose", labels, perm=[0, 1, 3, 2, 4])
    size = nodes.add("Mul", size, np.array([factor]))
    shape = nodes.add("Concat", np.array([-1]), size, axis=0)
    return nodes.add("Reshape", labels, shape)


def _shares(factor: int) -> np.ndarray:
    """Return what 4x4 places add to the pixels of the middle 2x2: [16, pixels]."""
    places = (np.arange(2 * factor) + 0.5) / factor + 0.5
    distances = np.abs(places - np.arange(4)[:, None])
    line = np.maximum(1 - distances, 0)
    return np.einsum("ip,jq->ijpq", line, line).reshape(16, -1)


def per_channel(values: np.ndarray) -> np.ndarray:
    """Return one value per channel, as [batch, channels, height, width] takes them."""
    return values[:, None, None]


def _embed(nodes: Nodes, images: str, params: Tree, stats: Tree) -> str:
    if "proj" in params:
        affine = _batch_norm(params["norm"], stats["norm"])
        return _stride_two(nodes, images, params["proj"], affine)
    affine = _batch_norm(params["proj_1"], stats["proj_1"])
    images = _gelu(nodes, _stride_two(nodes, images, params["proj_0"], affine))
    affine = _batch_norm(params["proj_4"], stats["proj_4"])
    return _stride_two(nodes, images, params["proj_3"], affine)


def _block(nodes: Nodes, images: str, params: Tree, stats: Tree) -> str:
    """Add ``y = x + a (n1(x) + attention(n1(x)))``, then ``y + b mlp(n2(y))``.

    With n1(x) = g x + h per channel, the first is ``x (1 + a g) + a h + a attention``.
    """
    gain, shift = affine = _batch_norm(params["norm1"], stats["norm1"])
    scale = params["layer_scale_1"]
    with nodes.scope("attn"):
        attn = params["attn"]
        hidden = _gelu(
            nodes, _pointwise(nodes, images, **_after(affine, attn["proj_1"]))
        )
        with nodes.scope("spatial_gating_unit"):
            hidden = _gate(nodes, hidden, attn["spatial_gating_unit"])
        branch = _before((scale, scale * shift), attn["proj_2"])
        hidden = _pointwise(nodes, hidden, **branch)
    kept = nodes.add("Mul", images, per_channel(1 + scale * gain))
    images = nodes.add("Add", kept, hidden)

    affine = _batch_norm(params["norm2"], stats["norm2"])
    scale = params["layer_scale_2"]
    with nodes.scope("mlp"):
        mlp = params["mlp"]
        hidden = _pointwise(nodes, images, **_after(affine, mlp["fc1"]))
        hidden = _gelu(nodes, _depthwise(nodes, hidden, mlp["dwconv"]))
        branch = _before((scale, np.zeros_like(scale)), mlp["fc2"])
        hidden = _pointwise(nodes, hidden, **branch)
    return nodes.add("Add", images, hidden)


def _gate(nodes: Nodes, images: str, params: Tree) -> str:
    local = _depthwise(nodes, images, params["conv0"])
    total = local
    for index in range(len(STRIP_LENGTHS)):
        row = _depthwise(nodes, local, params[f"conv{index}_1"])
        column = _depthwise(nodes, row, params[f"conv{index}_2"])
        total = nodes.add("Add", total, column)
    attention = _pointwise(nodes, total, **params["conv3"])
    return nodes.add("Mul", attention, images)


def _squeeze(nodes: Nodes, features: Sequence[tuple[str, int]], params: Tree) -> str:
    """Add the 1x1 convolution of joined maps, each map at its own size."""
    kernel = params["conv"]["kernel"]
    parts = np.split(kernel, np.cumsum([channels for _, channels in features])[:-1])
    total = ""
    for index, ((images, _), part) in enumerate(zip(features, parts, strict=True)):
        images = _pointwise(nodes, images, part)
        images = enlarge(nodes, images, 2**index, 2**index)
        total = nodes.add("Add", total, images) if total else images
    return nodes.add("Relu", _group_norm(nodes, total, params["gn"]))


def _nmf(
    nodes: Nodes, inputs: str, bases: np.ndarray, num_steps: int, kernel: np.ndarray
) -> str:
    """Add `ops.nmf.reconstruct` of [batch, channels, positions], and what follows it.

    Coefficients C are [batch, rank, positions]: ``X = D C``. The 1x1 convolution that
    follows is ``K (D C) = (K D) C``: the latter multiplies a quarter as often.
    """
    epsilon = _scalar(nmf.EPSILON)

    def times_ratio(old: str, wanted: str, given: str) -> str:
        denominator = nodes.add("Add", given, epsilon)
        return nodes.add("Div", nodes.add("Mul", old, wanted), denominator)

    def new_coefficients(old: str, now: str, wanted: str) -> str:
        gram = _product(nodes, _turned(nodes, now), now)
        return times_ratio(old, wanted, _product(nodes, gram, old))

    now = nodes.add("Identity", bases[None])
    wanted = _product(nodes, _turned(nodes, now), inputs)
    coefficients = nodes.add("Softmax", wanted, axis=1)
    for _ in range(num_steps):
        coefficients = new_coefficients(coefficients, now, wanted)
        turned = _turned(nodes, coefficients)
        gram = _product(nodes, coefficients, turned)
        given = _product(nodes, now, gram)
        now = times_ratio(now, _product(nodes, inputs, turned), given)
        wanted = _product(nodes, _turned(nodes, now), inputs)
    coefficients = new_coefficients(coefficients, now, wanted)
    return _product(nodes, _product(nodes, kernel.T, now), coefficients)


def _gelu(nodes: Nodes, values: str) -> str:
    hidden = nodes.add("Erf", nodes.add("Div", values, _scalar(2**0.5)))
    hidden = nodes.add("Add", hidden, _scalar(1.0))
    return nodes.add("Mul", nodes.add("Mul", values, hidden), _scalar(0.5))


def _layer_norm(nodes: Nodes, images: str, params: Tree) -> str:
    """Add a normalisation over channels, in rows of channels."""
    with nodes.in_float32():
        images = nodes.add(
            "LayerNormalization",
            *(channels_last(nodes, nodes.cast(images)), params["scale"]),
            params["bias"],
            axis=-1,
            epsilon=NORM_EPSILON,
        )
    images = nodes.cast(images)
    return nodes.add("Transpose", images, perm=[0, 3, 1, 2])


def _group_norm(nodes: Nodes, images: str, params: Tree) -> str:
    """Add a GroupNorm, as an InstanceNorm of flat groups: ONNX 17 has no other."""
    one = np.ones(NUM_GROUPS)
    with nodes.in_float32():
        groups = nodes.add("Reshape", nodes.cast(images), np.array([0, NUM_GROUPS, -1]))
        groups = nodes.add(
            *("InstanceNormalization", groups, one, np.zeros_like(one)),
            epsilon=NORM_EPSILON,
        )
        output = nodes.add("Reshape", groups, nodes.add("Shape", images))
        output = nodes.add("Mul", output, per_channel(params["scale"]))
        output = nodes.add("Add", output, per_channel(params["bias"]))
    return nodes.cast(output)


def _stride_two(nodes: Nodes, images: str, params: Tree, affine: Affine) -> str:
    """Add a 3x3 convolution of stride 2 with what follows it, per channel."""
    params = _before(affine, params)
    kernel = params["kernel"].transpose(3, 2, 0, 1)
    return nodes.add(
        "Conv", images, kernel, params["bias"], pads=[1, 1, 1, 1], strides=[2, 2]
    )


def _depthwise(nodes: Nodes, images: str, params: Tree) -> str:
    height, width, channels = params["kernel"].shape
    kernel = params["kernel"].transpose(2, 0, 1)[:, None]
    return nodes.add(
        *("Conv", images, kernel, params["bias"]),
        pads=[height // 2, width // 2] * 2,
        group=channels,
    )


def _pointwise(
    nodes: Nodes, images: str, kernel: np.ndarray, bias: np.ndarray | None = None
) -> str:
    biases = () if bias is None else (bias,)
    return nodes.add("Conv", images, kernel.T[:, :, None, None], *biases)


def _batch_norm(params: Tree, stats: Tree) -> Affine:
    gain = params["scale"] / np.sqrt(stats["var"] + BatchNorm.epsilon)
    return gain, params["bias"] - stats["mean"] * gain


def _before(affine: Affine, params: Tree) -> Tree:
    """Return the convolution with what follows it, per channel."""
    gain, shift = affine
    return {"kernel": params["kernel"] * gain, "bias": params["bias"] * gain + shift}


def _after(affine: Affine, params: Tree) -> Tree:
    """Return the 1x1 convolution with what comes before it, per channel."""
    gain, shift = affine
    kernel = params["kernel"]
    return {"kernel": kernel * gain[:, None], "bias": params["bias"] + shift @ kernel}


def _product(nodes: Nodes, left: str | np.ndarray, right: str | np.ndarray) -> str:
    return nodes.add("MatMul", left, right)


def _turned(nodes: Nodes, matrices: str) -> str:
    return nodes.add("Transpose", matrices, perm=[0, 2, 1])


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float64)
