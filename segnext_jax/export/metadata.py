"""What a program must know to use an exported network, as JSON."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from segnext_jax import __version__
from segnext_jax.demo import page
from segnext_jax.export.options import SIZE_MULTIPLE
from segnext_jax.export.program import CERTAINTY_NAME, INPUT_NAME, Signature
from segnext_jax.predict.predictor import Predictor

FILE = "metadata.json"

CERTAINTY = {
    "name": CERTAINTY_NAME,
    "layout": "NHW",
    "dtype": "float32",
    "meaning": "probability of the best class, at 1/8 of the input's size; ONNX alone",
}
MEANINGS = {
    "labels": "best class of each pixel of the input: its position in classes",
    "probabilities": "softmax over classes of each pixel of the input",
    "logits": "scores at 1/8 of the input's size, as the network gives them; resize "
    "them bilinearly with half-pixel centres (align_corners=False, no antialiasing) to "
    "the input's size, then to the image's, and take the best class",
}

# By config.evaluation.alignment.
ALIGNMENTS = {
    "resize": "stretched to a multiple of both sides",
    "pad": "padded below and to the right to a multiple of both sides, by the mean "
    "colour, and the labels of the padding cut off",
}


def describe(
    predictor: Predictor,
    signature: Signature,
    *,
    dtype: str,
    checkpoint: str,
    files: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the description of an exported network; plain values.

    Args:
      predictor: The network.
      signature: What goes in and comes out.
      dtype: Type of activations.
      checkpoint: Where the weights come from.
      files: What was written, by format.
    """
    config, spec = predictor.config, predictor.spec
    model = predictor.model
    scale = config.evaluation.scale
    about = page.about(predictor, checkpoint)
    return {
        **about,
        "network": {
            **about["network"],
            "decomposition": "nmf",
            "decomposition_steps": model.nmf_eval_steps,
            "bases": f"fixed: drawn once, by seed {model.nmf_eval_seed}",
            "activations": dtype,
        },
        "versions": {"segnext_jax": __version__, "jax": jax.__version__},
        "ignore_label": spec.ignore_label,
        "input": {
            "name": INPUT_NAME,
            "layout": "NHWC",
            "shape": list(signature.input_dims()),
            "dtype": signature.input_dtype.name,
            "channels": "RGB",
            "multiple_of": SIZE_MULTIPLE,
            "normalisation": {
                "mean": list(config.data.mean),
                "std": list(config.data.std),
                "formula": "(image - mean) / std, image in 0..255",
                "inside": signature.input == "uint8",
            },
        },
        "resize": {
            "rule": "evaluation's: with the aspect ratio kept as large as fits into "
            "[long side, short side] (null: as it is), then "
            f"{ALIGNMENTS[config.evaluation.alignment]}; bilinear on bytes, without "
            "antialiasing",
            "alignment": config.evaluation.alignment,
            "fit_into": None if tuple(scale) == (0, 0) else list(scale),
            "multiple_of": math.lcm(SIZE_MULTIPLE, config.evaluation.size_multiple),
        },
        "output": {
            "name": signature.output,
            "layout": "NHW" if signature.output == "labels" else "NHWC",
            "shape": list(signature.output_dims(spec.num_classes)),
            "dtype": "uint8" if signature.output == "labels" else "float32",
            "meaning": MEANINGS[signature.output],
        },
        **({"certainty": CERTAINTY} if signature.has_certainty else {}),
        "files": {name: dict(entry) for name, entry in files.items()},
    }
