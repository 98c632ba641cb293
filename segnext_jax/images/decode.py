"""From encoded files to arrays: photographs, label maps, and the check of their ids.

OpenCV decodes; Pillow, which is slower, only what OpenCV would change: palette indices,
masks of one bit, TIFF with an alpha channel.
"""

import io
import struct

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.images.label_png import decode_unfiltered_png

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PALETTE = 3
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
# OpenCV looks palettes up, makes 255 of a set bit, multiplies the colours of TIFF by
# alpha.
_LEFT_TO_PILLOW = ("P", "1", "LA", "RGBA")
_EXIF_ORIENTATION = 0x0112


def decode_image(encoded: bytes, image_id: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """Decode a photograph to RGB.

    Whatever OpenCV reads is accepted (JPEG, PNG, TIFF, WebP, BMP, ...): grey and CMYK
    become RGB, of 16 bits the upper eight are kept, an alpha channel is dropped. An
    EXIF orientation is applied, as viewers do: the mask must be drawn on the turned
    photograph.

    Args:
        encoded: Contents of an image file.
        image_id: Name of the image, for the error message.

    Returns:
        The pixels in RGB order.

    Raises:
        ValueError: The bytes are no image, or only a part of one.

    Differs: the official pipeline goes on with BGR and turns the channels round when it
        normalises; here images are RGB from the start.
    """
    image = _decode_rgb(encoded, cv2.IMREAD_COLOR_RGB)
    if image is None or not _is_whole(encoded):
        raise ValueError(
            f"{image_id or 'image'}: cannot be decoded as an image ({len(encoded)} "
            "bytes: truncated or not an image file). Replace the file."
        )
    return image


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
        ValueError: The bytes are no image or only a part of one, they were compressed
            with loss, the image is coloured, or an id does not fit in a byte.
    """
    if (prepared := decode_unfiltered_png(encoded)) is not None:
        return prepared
    name = image_id or "label"
    _check_lossless(encoded, name)
    bit_depth, colour_type = _png_pixel_format(encoded)
    if colour_type == _PNG_PALETTE or _pillow_mode(encoded) in _LEFT_TO_PILLOW:
        label = _decode_with_pillow(encoded)
    else:
        label = (
            cv2.imdecode(_as_array(encoded), cv2.IMREAD_UNCHANGED) if encoded else None
        )
    if label is None:
        raise _undecodable(name, encoded)
    if label.ndim != 2:
        colours = label[..., : 1 if label.shape[2] == 2 else 3]
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
        lowest, highest = label.min(), label.max()
        is_byte = lowest >= 0 and highest <= 255  # Not so of NaN, either.
        if not is_byte or (label != label.astype(np.uint8)).any():
            raise ValueError(
                f"{name}: ids of a label map must lie in [0, 255]: got "
                f"{lowest}..{highest} ({label.dtype}). Map them to class ids."
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
        ValueError: The bytes are no image or only a part of one, or they were
            compressed with loss.
    """
    name = image_id or "label"
    _check_lossless(encoded, name)
    flags = cv2.IMREAD_COLOR_RGB
    if not encoded.startswith(_TIFF_SIGNATURES):
        # Where `decode_label` cannot help applying it, neither does this.
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    colours = _decode_rgb(encoded, flags)
    if colours is None:
        raise _undecodable(name, encoded)
    return colours


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
        ValueError: The sizes differ.
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


def exif_orientation(encoded: bytes) -> int:
    """Return the EXIF orientation of an image file; 1, upright, where it has none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError):
        return 1


def encode_label(labels: UInt8[np.ndarray, "h w"]) -> bytes:
    """Encode a label map as an 8-bit grey PNG.

    Rows are stored unfiltered: of class ids the result is a third of the size and
    is decoded in a quarter of the time of what OpenCV makes by default.

    Args:
        labels: One id per pixel.

    Returns:
        The contents of a PNG file.
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

    A device would not complain: JAX clips an index that is out of range.

    Args:
        labels: One id per pixel.
        num_classes: Number of classes; their ids are 0..num_classes-1.
        ignore_label: The one other id that may occur.
        image_id: Name of the image, for the error message.

    Raises:
        ValueError: Another id occurs.
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


def _as_array(encoded: bytes) -> np.ndarray:
    return np.frombuffer(encoded, np.uint8)


def _is_whole(encoded: bytes) -> bool:
    """Tell a JPEG that ends early, which OpenCV 4 decodes to grey without a word."""
    if not encoded.startswith(b"\xff\xd8") or encoded.endswith(b"\xff\xd9"):
        return True
    # Bytes may follow the end marker; within a scan neither marker can occur.
    return encoded.rfind(b"\xff\xd9") > encoded.rfind(b"\xff\xda")


def _png_pixel_format(encoded: bytes) -> tuple[int, int]:
    """Return bit depth and colour type of a PNG; (8, -1) for any other file."""
    if len(encoded) < 26 or not encoded.startswith(_PNG_SIGNATURE):
        return 8, -1
    return encoded[24], encoded[25]


def png_size(encoded: bytes) -> tuple[int, int] | None:
    """Read the (height, width) of a PNG from its header, None if it is no PNG."""
    if len(encoded) < 26 or not encoded.startswith(_PNG_SIGNATURE):
        return None
    width, height = struct.unpack(">II", encoded[16:24])
    return height, width


def _decode_rgb(encoded: bytes, flags: int) -> np.ndarray | None:
    if encoded.startswith(_TIFF_SIGNATURES) and _pillow_mode(encoded) in ("LA", "RGBA"):
        return _decode_with_pillow(encoded, "RGB")
    return cv2.imdecode(_as_array(encoded), flags) if encoded else None


def _pillow_mode(encoded: bytes) -> str:
    """Return Pillow's name of the pixels of a TIFF or BMP; empty for other files."""
    if not encoded.startswith((*_TIFF_SIGNATURES, b"BM")):
        return ""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.mode
    # Pillow warns of broken headers; where warnings are errors, one may arrive here.
    except (OSError, SyntaxError, ValueError, UserWarning):
        return ""


def _decode_with_pillow(encoded: bytes, mode: str | None = None) -> np.ndarray | None:
    # Imported only for such files.
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(image.convert(mode) if mode else image, np.uint8)
    except (OSError, SyntaxError, ValueError, UserWarning):
        return None


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


def _undecodable(name: str, encoded: bytes) -> ValueError:
    return ValueError(
        f"{name}: its label map cannot be decoded ({len(encoded)} bytes: truncated "
        "or not an image file). Replace the file."
    )
