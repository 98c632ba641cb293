"""What a kernel is made for."""

from typing import NamedTuple

from jaxtyping import Array

from segnext_jax.ops.kernels.plane_program import Planes
from segnext_jax.ops.kernels.row_program import Layout, make_layout


class Target(NamedTuple):
    """A platform.

    Attributes:
      is_tpu: Whether Mosaic compiles the kernel for TPUs, not Triton for NVIDIA GPUs.
      interpret: Run the kernel on any platform instead, slowly: for tests.
    """

    is_tpu: bool = False
    interpret: bool = False

    def layout(
        self, images: Array, values_per_lane: int, *, min_programs: int, min_rows: int
    ) -> Layout | Planes:
        """Return how images are divided; the numbers are for GPUs (`make_layout`)."""
        if self.is_tpu:
            return Planes(images.shape, images.dtype.itemsize, self.interpret)
        return make_layout(
            images.shape,
            values_per_lane,
            min_programs=min_programs,
            min_rows=min_rows,
            interpret=self.interpret,
        )


GPU, TPU = Target(), Target(is_tpu=True)


def has_planes_for(images: Array) -> bool:
    """Return whether a TPU's on-chip memory has room for planes of the images."""
    return Planes(images.shape, images.dtype.itemsize).fits
