"""Videos through the network, a batch of frames after the other."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from segnext_jax.cli import storage
from segnext_jax.cli.progress import Progress
from segnext_jax.cli.whole_files import whole_file, whole_folder
from segnext_jax.datasets.pairs import check_regular
from segnext_jax.predict import files
from segnext_jax.predict.jobs import PICTURES, Job, Options
from segnext_jax.predict.predictor import Predictor

# Frame rate of a video whose file does not give one.
_FRAMES_PER_SECOND = 25.0
_CODEC = "mp4v"


def predict_video(predictor: Predictor, job: Job, options: Options) -> str:
    """Predict all frames of a video; return what is missing, empty if nothing is.

    Pictures become a video again (MPEG-4, without sound). Labels and probabilities
    become one file for each frame. All outputs get their names when they are complete.

    Raises:
      OSError: If an output cannot be written.
      ValueError: If the video cannot be read, or its frames are too large.
    """
    if not job.input.path.exists():
        raise ValueError(f"a video must be a file: {job.input.path} does not exist.")
    targets: list[_VideoFile | _FrameFolder] = []
    # What is entered last ends first: a video is closed before it gets its name.
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(storage.local(job.input.path))
        check_regular(file)
        capture = cv2.VideoCapture(str(file))
        stack.callback(capture.release)
        rate = capture.get(cv2.CAP_PROP_FPS) or _FRAMES_PER_SECOND
        total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        frames = _frames(capture)
        progress = Progress(total, description=job.input.path.name)
        count = 0
        batch_size = options.batch_size * predictor.num_devices
        while batch := list(itertools.islice(frames, batch_size)):
            if not targets:
                predictor.input_sizes(batch[0].shape[:2])
                for name, path in job.paths.items():
                    if name in PICTURES:
                        partial = stack.enter_context(whole_file(path))
                        target = _VideoFile(name, partial, rate, predictor, options)
                        stack.callback(target.close)
                    else:
                        partial = stack.enter_context(whole_folder(path))
                        target = _FrameFolder(name, partial, predictor, options)
                    targets.append(target)
            blocks = predictor.predict_batch(batch, options.has_probabilities)
            for frame, block in zip(batch, blocks, strict=True):
                for target in targets:
                    target.write(frame, block.labels, block.probabilities)
                count += 1
                progress.advance()
        progress.close()
        if not count:
            raise ValueError(
                f"{job.input.path}: cannot be decoded as a video: it has no frame that "
                "OpenCV reads. Convert it to MP4 with H.264."
            )
        # In some formats the number of frames is an estimate from duration and rate.
        if count < total - max(2, total // 50):
            return (
                f"{job.input.path}: only {count} of {total} frames can be decoded: the "
                "video is truncated or damaged. The outputs hold those."
            )
        return ""


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        is_there, frame = capture.read()
        if not is_there:
            return
        yield np.ascontiguousarray(frame[..., ::-1])


class _VideoFile:
    """Pictures of all frames as one video."""

    def __init__(
        self,
        name: str,
        path: pathlib.Path,
        rate: float,
        predictor: Predictor,
        options: Options,
    ):
        self._draw_fn = files.picture_fn(
            name, predictor.spec, options.files.opacity, all_classes=True
        )
        self._path = path
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def write(
        self, frame: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None
    ):
        """Draw and append the next frame."""
        picture = self._draw_fn(frame, labels)
        # The codec halves the resolution of colours.
        height, width = (side // 2 * 2 for side in picture.shape[:2])
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(
                str(self._path), codec, self._rate, (width, height)
            )
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: cannot be written as a video.")
        self._writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.release()


class _FrameFolder:
    """One file for each frame: 000000.png, 000001.png, ..."""

    def __init__(
        self, name: str, folder: pathlib.Path, predictor: Predictor, options: Options
    ):
        self._name = name
        self._folder = folder
        self._spec = predictor.spec
        self._options = options.files
        self._count = 0

    def write(
        self, frame: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None
    ):
        """Write the next frame's file."""
        suffix = files.SUFFIXES[self._name]
        with (self._folder / f"{self._count:06d}{suffix}").open("w+b") as opened:
            file = files.begin(self._name, opened, frame, self._spec, self._options)
            file.write(labels, probabilities)
            file.close()
        self._count += 1
