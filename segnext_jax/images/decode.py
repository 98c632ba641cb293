"""From encoded files to arrays: photographs, label maps, and the check of their ids.

OpenCV decodes most files. Pillow, which is slower, decodes what OpenCV would change:
palette indices, masks of one bit, TIFF with an alpha channel. `decoders` calls both.
"""

import struct

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.images.decoders import (
    check_header,
    decode_with_opencv,
    decode_with_pillow,
    exif_orientation,
    stored_mode,
)
from segnext_jax.images.headers import PNG_SIGNATURE, Header
from segnext_jax.images.label_png import decode_unfiltered_png

_PNG_PALETTE = 3
# OpenCV looks palettes up, makes 255 of a set bit, multiplies the colours of TIFF by
# alpha.
_LEFT_TO_PILLOW = ("P", "1", "LA", "RGBA")


def decode_image(encoded: bytes, image_id: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """Decode a photograph to RGB.

    JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, AVIF and PNM are read: grey and CMYK
    become RGB, of 16 bits the upper eight are kept, an alpha channel is dropped. An
    EXIF orientation is applied, as viewers do: the mask must be drawn on the turned
    photograph.

    Args:
      encoded: Contents of an image file.
      image_id: Name of the image, for the error message.

    Returns:
      The pixels in RGB order.

    Raises:
      ValueError: If the bytes are no image, only a part of one, or too large.

    Differs: the official pipeline goes on with BGR and turns the channels round when it
        normalises; here images are RGB from the start.
    """
    subject = f"{image_id or 'image'}: cannot be decoded as an image"
    header = check_header(encoded, subject)
    return _decode_rgb(encoded, header, cv2.IMREAD_COLOR_RGB, subject)


def decode_label(encoded: bytes, image_id: str = "") -> UInt8[np.ndarray, "h w"]:
    """Decode a label map to the numbers that its file stores.

    The indices of a palette file come out unchanged, whatever the palette, and so do
    the values of grey files of 1, 2 and 4 bits, which decoders would stretch to 0..255.
    An image whose colour channels are equal counts as grey (WebP knows no other), an
    alpha channel is dropped, an EXIF orientation is not applied (except to TIFF).

    Args:
      encoded: Contents of an image file: PNG, TIFF, WebP, BMP.
      image_id: Name of the image, for the error message.

    Returns:
      One id per pixel.

    Raises:
      ValueError: If the bytes are no image or only a part of one, the image was
        compressed with loss or is coloured, the ids are in the alpha channel, or an id
        does not fit in a byte.
    """
    name = image_id or "label"
    subject = f"{name}: its label map cannot be decoded"
    header = check_header(encoded, subject)
    if (prepared := decode_unfiltered_png(encoded)) is not None:
        return prepared
    _check_lossless(encoded, name)
    bit_depth, colour_type = _png_pixel_format(encoded)
    if colour_type == _PNG_PALETTE or _is_left_to_pillow(encoded, header):
        label = decode_with_pillow(encoded, header, None, subject)
    else:
        label = decode_with_opencv(encoded, header, cv2.IMREAD_UNCHANGED, subject)
    if label.ndim != 2:
        colours = label[..., : 1 if label.shape[2] == 2 else 3]
        if label.shape[2] in (2, 4) and _is_in_alpha(label):
            raise ValueError(
                f"{name}: ids of a label map must be its grey values: they are the "
                "same everywhere, and the alpha channel varies. Export the masks as "
                "grey or palette PNG, without transparency."
            )
        if (colours != colours[..., :1]).any():
            raise ValueError(
                f"{name}: a label map must have one channel, and this one has "
                f"{label.shape[2]} (a colour mask?). Convert its colours to class ids; "
                'of a folder, set config.data.mask_values to "colours".'
            )
        label = np.ascontiguousarray(colours[..., 0])
    if colour_type != _PNG_PALETTE and bit_depth < 8:
        label = label // np.uint8(255 // (2**bit_depth - 1))
    if label.dtype != np.uint8:
        is_byte = label.min() >= 0 and label.max() <= 255  # Not so of NaN, either.
        if not is_byte or (label != label.astype(np.uint8)).any():
            raise ValueError(
                f"{name}: ids of a label map must be whole and lie in [0, 255]: got "
                f"{_range(label)} ({label.dtype}). Map them to class ids, and what "
                "means nothing (-1, NaN) to 255."
            )
        label = label.astype(np.uint8)
    return label


def decode_colours(encoded: bytes, image_id: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """Decode a colour mask to RGB; palettes are looked up, alpha is dropped.

    Args:
      encoded: Contents of an image file: PNG, TIFF, WebP, BMP.
      image_id: Name of the image, for the error message.

    Returns:
      The colours as stored; an EXIF orientation is not applied (except to TIFF).

    Raises:
      ValueError: If the bytes are no image, only a part of one or too large, or the
        image was compressed with loss.
    """
    name = image_id or "label"
    subject = f"{name}: its label map cannot be decoded"
    header = check_header(encoded, subject)
    _check_lossless(encoded, name)
    flags = cv2.IMREAD_COLOR_RGB
    if header.format != "TIFF":
        # Where `decode_label` cannot help applying it, neither does this.
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    return _decode_rgb(encoded, header, flags, subject)


def check_sizes(
    image: UInt8[np.ndarray, "image_height image_width 3"],
    labels: UInt8[np.ndarray, "height width"],
    encoded_image: bytes,
    image_id: str,
) -> None:
    """Refuse a photograph and a label map of different sizes.

    Args:
      image: The decoded photograph.
      labels: The decoded label map.
      encoded_image: The file contents of the photograph, for its EXIF orientation.
      image_id: Name of the image, for the error message.

    Raises:
      ValueError: If the sizes differ.
    """
    size = image.shape[:2]
    if size == labels.shape:
        return
    if size == labels.shape[::-1] and exif_orientation(encoded_image) >= 5:
        raise ValueError(
            f"{image_id}: the mask must fit the photograph as its EXIF orientation "
            f"turns it, {size} (height, width): got {labels.shape}, the size before "
            "turning. Turn the mask, too, or save the photograph turned, without EXIF."
        )
    raise ValueError(
        f"{image_id}: photograph and mask must have one size: got {size} and "
        f"{labels.shape} (height, width). Replace the one that is wrong."
    )


def encode_label(labels: UInt8[np.ndarray, "h w"]) -> bytes:
    """Encode a label map as an 8-bit grey PNG.

    Rows are stored unfiltered. A file of class ids then has a third of the size of the
    file that OpenCV writes by default, and is decoded in a quarter of the time.

    Args:
      labels: One id per pixel.
    """
    options = [
        *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
        *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
        *(cv2.IMWRITE_PNG_COMPRESSION, 8),
    ]
    is_encoded, encoded = cv2.imencode(".png", labels, options)
    assert is_encoded
    return encoded.tobytes()


def check_labels(
    labels: UInt8[np.ndarray, "h w"],
    num_classes: int,
    ignore_label: int,
    image_id: str,
) -> None:
    """Refuse a label map with an id that is neither a class nor ignored.

    On a device nothing would fail, because JAX clips an index that is out of range.

    Args:
      labels: One id per pixel.
      num_classes: Number of classes; their ids are 0..num_classes-1.
      ignore_label: The one other id that may occur.
      image_id: Name of the image, for the error message.

    Raises:
      ValueError: If another id occurs.
    """
    # 255 + 1 is 0 in bytes: two quick passes settle nearly every call.
    if ignore_label == 255 and (labels + np.uint8(1)).max() <= num_classes:
        return
    is_wrong = (labels >= num_classes) & (labels != ignore_label)
    if not is_wrong.any():
        return
    wrong = np.unique(labels[is_wrong]).tolist()
    shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
    hint = (
        "were the ids 1.. meant to start at 0? For a folder there is "
        "config.data.zero_is_ignore"
        if wrong == [num_classes]
        else "is this the right data set, and the right number of classes?"
    )
    raise ValueError(
        f"{image_id}: label ids must lie in [0, {num_classes - 1}] or be "
        f"{ignore_label} (ignored): found {shown} on {int(is_wrong.sum())} pixels. "
        f"Correct the mask ({hint})."
    )


def _png_pixel_format(encoded: bytes) -> tuple[int, int]:
    """Return bit depth and colour type of a PNG; (8, -1) for any other file."""
    if len(encoded) < 26 or not encoded.startswith(PNG_SIGNATURE):
        return 8, -1
    return encoded[24], encoded[25]


def png_size(encoded: bytes) -> tuple[int, int] | None:
    """Read the (height, width) of a PNG from its header, None if it is no PNG."""
    if len(encoded) < 26 or not encoded.startswith(PNG_SIGNATURE):
        return None
    width, height = struct.unpack(">II", encoded[16:24])
    return height, width


def _decode_rgb(encoded: bytes, header: Header, flags: int, subject: str) -> np.ndarray:
    if header.format == "TIFF":
        _, mode = stored_mode(encoded, header)
        if mode in ("LA", "RGBA"):
            return decode_with_pillow(encoded, header, "RGB", subject)
    return decode_with_opencv(encoded, header, flags, subject)


def _is_left_to_pillow(encoded: bytes, header: Header) -> bool:
    if header.format not in ("TIFF", "BMP", "GIF"):
        return False
    return stored_mode(encoded, header)[1] in _LEFT_TO_PILLOW


def _is_in_alpha(label: np.ndarray) -> bool:
    """Return whether only the last channel tells pixels apart."""
    is_first = (label == label[:1, :1]).all(axis=(0, 1))
    return bool(is_first[:-1].all() and not is_first[-1])


def _range(values: np.ndarray) -> str:
    """Return the smallest and largest number, and whether some are none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no number at all"
    nans = ", NaN or infinity among them" if finite.size < values.size else ""
    return f"{finite.min()}..{finite.max()}{nans}"


def _check_lossless(encoded: bytes, name: str) -> None:
    if encoded.startswith(b"\xff\xd8"):
        kind = "a JPEG"
    elif encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP" and _is_lossy(encoded):
        kind = "a lossy WebP"
    else:
        return
    raise ValueError(
        f"{name}: a label map must be stored without loss, or ids change at every "
        f"boundary: got {kind} file. Export the masks anew as PNG (converting this "
        "file does not bring the ids back)."
    )


def _is_lossy(webp: bytes) -> bool:
    """Return whether a WebP file holds a lossily compressed picture ("VP8 ")."""
    position = 12
    while position + 8 <= len(webp):
        chunk, length = struct.unpack("<4sI", webp[position : position + 8])
        if chunk in (b"VP8 ", b"VP8L"):
            return chunk == b"VP8 "
        position += 8 + length + length % 2
    return False
