"""What the command line offers; `--help` must not import jax."""

INPUTS = ("uint8", "float")
OUTPUTS = ("labels", "probabilities", "logits")
DTYPES = ("float32", "bfloat16")
PLATFORMS = ("cpu", "cuda", "tpu")
PRECISIONS = ("float32", "float16", "int8")
# The encoder halves its input five times; of such sizes each half is a whole number.
SIZE_MULTIPLE = 32
