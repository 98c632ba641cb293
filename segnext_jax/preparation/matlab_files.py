"""Label maps in MATLAB files, as SBD and Pascal Context publish them."""

import io

import numpy as np
import scipy.io
from jaxtyping import UInt


def read_label_map(
    contents: bytes, fields: tuple[str, ...], name: str
) -> UInt[np.ndarray, "h w"]:
    """Read one matrix of ids.

    Args:
      contents: A `.mat` file of version 5.
      fields: The variable, and the field of it if it is a struct.
      name: The file's name, for the error message.

    Raises:
      ValueError: If the file is broken or holds something else.
    """
    try:
        value = scipy.io.loadmat(io.BytesIO(contents), variable_names=fields[0])
        value = value[fields[0]]
        for field in fields[1:]:
            value = value[field][0, 0]
    # Whatever scipy meets in a damaged file: a dozen types, MemoryError among them.
    except Exception as error:
        raise ValueError(
            f"{name}: must be a MATLAB file with {'.'.join(fields)}: got {error!r}. "
            "Replace the file."
        ) from None
    labels = np.ascontiguousarray(value)
    # MATLAB's own number is a double: whole numbers in it are ids too.
    if labels.ndim == 2 and labels.dtype.kind in "if":
        with np.errstate(invalid="ignore"):  # NaN is no whole number either.
            whole = labels.astype(np.uint32)
        labels = whole if np.array_equal(whole, labels) else labels
    if labels.ndim != 2 or labels.dtype.kind != "u":
        raise ValueError(
            f"{name}: {'.'.join(fields)} must be a matrix of whole numbers from 0: got "
            f"{labels.dtype} {labels.shape}. Replace the file."
        )
    return labels
