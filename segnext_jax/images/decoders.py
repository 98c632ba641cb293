"""Decode files with OpenCV and Pillow: bounds are checked first, all errors are one.

Each library raises errors of its own types, some of them undocumented. This module
turns all of them into one `ValueError` that says what is wrong with the file. It
decodes no file whose header promises more pixels than `max_pixels()`.
"""

import io
import os
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.pairs import one_line
from segnext_jax.images.headers import Header, jpeg_is_whole, read_header
from segnext_jax.images.headers import why_undecodable as _why_undecodable

MAX_PIXELS_VARIABLE = "SEGNEXT_JAX_MAX_PIXELS"
# 16,384 x 16,384: 0.8 GB in RGB.
_DEFAULT_MAX_PIXELS = 2**28
_EXIF_ORIENTATION = 0x0112


def max_pixels() -> int:
    """Return how many pixels an image may have.

    Raises:
      ValueError: If the environment variable `SEGNEXT_JAX_MAX_PIXELS` is no number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE) or str(_DEFAULT_MAX_PIXELS)
    if not text.isdecimal():
        raise ValueError(
            f"the environment variable {MAX_PIXELS_VARIABLE} must be a number of "
            f"pixels: got {text!r}. Correct or unset it."
        )
    return int(text)


def check_header(encoded: bytes, subject: str) -> Header:
    """Return what a file promises, if it may be decoded.

    Args:
      encoded: Contents of the file.
      subject: Beginning of the error message: the file's name and what failed.

    Raises:
      ValueError: If the file is no image file, or has too many pixels.
    """
    header = read_header(encoded)
    if header.size is None or 0 in header.size:
        raise undecodable(encoded, header, subject)
    height, width = header.size
    if height * width > (limit := max_pixels()):
        raise ValueError(
            f"{subject}: it must have at most {limit:,} pixels, or it may fill the "
            f"memory: its header says {height} x {width} (height, width). Reduce it, "
            f"or set the environment variable {MAX_PIXELS_VARIABLE} to more."
        )
    return header


def decode_with_opencv(
    encoded: bytes, header: Header, flags: int, subject: str
) -> np.ndarray:
    """Decode a file with OpenCV.

    Args:
      encoded: Contents of the file.
      header: What `check_header` has returned.
      flags: `cv2.IMREAD_...`.
      subject: Beginning of the error message.

    Raises:
      ValueError: If the file cannot be decoded, or is only a part of an image.
    """
    # OpenCV 4 decodes a JPEG that ends early to grey without a word.
    if header.format == "JPEG" and not jpeg_is_whole(encoded):
        raise undecodable(encoded, header, subject)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except Exception as error:  # cv2.error, MemoryError, SystemError, ...
        raise undecodable(encoded, header, subject, error) from None
    if image is None or not image.size:
        raise undecodable(encoded, header, subject)
    return image


def decode_with_pillow(
    encoded: bytes, header: Header, mode: str | None, subject: str
) -> np.ndarray:
    """Decode a file with Pillow.

    Args:
      encoded: Contents of the file.
      header: What `check_header` has returned.
      mode: Pillow's name of the pixels that are wanted; None: as they are stored.
      subject: Beginning of the error message.

    Raises:
      ValueError: If the file cannot be decoded, or is only a part of an image.
    """
    try:
        with _open(encoded, header) as image:
            return np.array(image.convert(mode) if mode else image, np.uint8)
    except Exception as error:  # OSError, SyntaxError, struct.error, warnings, ...
        raise undecodable(encoded, header, subject, error) from None


def stored_mode(encoded: bytes, header: Header) -> tuple[str, str]:
    """Return format and kind of pixels as Pillow names them, empty if it cannot.

    Args:
      encoded: Contents of the file.
      header: What `check_header` has returned.
    """
    try:
        with _open(encoded, header) as image:
            return image.format or "", image.mode
    except Exception:
        return "", ""  # OpenCV reads what Pillow does not.


def from_pillow(image: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Return what `decode.decode_image` gives of the file of a Pillow image.

    Args:
      image: A `PIL.Image.Image`. An EXIF orientation is applied, of 16 bits the upper
        eight are kept, an alpha channel is dropped.

    Raises:
      ValueError: If Pillow cannot decode the image's file, or the numbers are no grey
        levels.
    """
    from PIL import ImageOps

    # Arrays of 32 bits, and TIFF of them, are no photographs; of other files Pillow
    # gives 16 bits so.
    is_wide = image.mode == "I" and image.format in ("TIFF", None)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode != "F" and not image.mode.startswith("I"):
            return np.asarray(image.convert("RGB"))
        levels = np.asarray(image)
    except Exception as error:  # Pillow reads the file only now.
        raise ValueError(
            "a Pillow image must be whole: its pixels cannot be read "
            f"({one_line(error)}). Replace its file."
        ) from None
    is_wide |= levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > 0xFFFF
    if is_wide:
        raise ValueError(
            "a Pillow image must hold 8 or 16 bits a channel: its mode is "
            f"{image.mode!r}, with values {levels.min()}..{levels.max()}. Bring it to "
            "0..255 in mode L or RGB."
        )
    return np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)


def exif_orientation(encoded: bytes) -> int:
    """Return the EXIF orientation of an image file; 1, upright, where it has none."""
    from PIL import Image

    try:
        with _open(encoded, read_header(encoded)) as image:
            # The PNG's own method decodes the picture, in search of a later chunk.
            return int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def undecodable(
    encoded: bytes, header: Header, subject: str, error: Exception | None = None
) -> ValueError:
    """Return the error for a file that cannot be decoded.

    Args:
      encoded: Contents of the file.
      header: What `read_header` says of it.
      subject: Beginning of the message.
      error: What the decoder has raised.
    """
    reason, advice = _why_undecodable(encoded, header)
    if isinstance(error, cv2.error):
        reason += f" ({error.err})" if error.err else ""
    elif error is not None:
        reason += f" ({one_line(error)})"
    return ValueError(f"{subject}: {reason}. {advice}")


def _open(encoded: bytes, header: Header) -> Any:
    """Open a file with Pillow, without its own limit of pixels.

    The limit is a variable of Pillow's that the whole process shares;
    `check_header` has applied ours.
    """
    # Imported only for such files.
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
    }[header.format](io.BytesIO(encoded))
