"""The same work in PyTorch, where a file with the network is given."""

import importlib.util
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from segnext_jax.convert.weights import to_state_dict

# How PyTorch may run a network; the best of them counts.
FORMS = ("eager", "channels_last", "compile")


class Opponent:
    """A network in PyTorch with given weights, in one of `FORMS`.

    The file has a function ``segnext(variant, num_classes)``, which returns a network
    with the official parameter names, an attribute ``bases`` [batch, channels, rank]
    and a method ``loss(images, labels)``.

    On a GPU that PyTorch sees it runs there. In bfloat16 it runs under autocast.
    """

    def __init__(
        self,
        path: str,
        form: str,
        variant: str,
        num_classes: int,
        variables: dict[str, Any],
        dtype: str,
    ):
        """Load the network of a file."""
        import torch

        self._torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = dtype
        model = _load(path).segnext(variant, num_classes)
        state = to_state_dict(variables)
        model.load_state_dict(
            {k: torch.tensor(np.asarray(v)) for k, v in state.items()}
        )
        self._format = (
            torch.contiguous_format if form == "eager" else torch.channels_last
        )
        self.network = model.to(self.device, memory_format=self._format)
        self._is_compiled = form == "compile"

    def _call(self, function: Callable) -> Callable:
        return self._torch.compile(function) if self._is_compiled else function

    def _images(self, images: np.ndarray) -> Any:
        tensor = self._torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        return tensor.contiguous(memory_format=self._format)

    def _autocast(self) -> Any:
        return self._torch.autocast(
            self.device, self._torch.bfloat16, enabled=self.dtype == "bfloat16"
        )

    def _wait(self) -> None:
        if self.device == "cuda":
            self._torch.cuda.synchronize()

    def forward(
        self, images: np.ndarray, bases: np.ndarray, to_labels: bool
    ) -> tuple[Callable[[], np.ndarray], float]:
        """Return a program, and the seconds that its first run took.

        Args:
          images: Normalised, NHWC.
          bases: Of the NMF, one for each image.
          to_labels: Whether the result is the label map, or logits NHWC at 1/8.
        """
        torch = self._torch
        self.network.eval()
        self.network.bases = torch.tensor(bases, device=self.device)
        tensor = self._images(images)

        def network(tensor):
            return self.network(tensor)

        def predict(tensor):
            return self.network.predict(tensor).argmax(dim=1)

        call = self._call(predict if to_labels else network)

        def run():
            with torch.inference_mode(), self._autocast():
                output = call(tensor)
            self._wait()
            return output

        start = time.perf_counter()
        run()
        return run, time.perf_counter() - start

    def to_numpy(self, output: Any) -> np.ndarray:
        """Return logits NHWC in float32, or labels."""
        if output.ndim == 4:
            output = output.float().permute(0, 2, 3, 1)
        return output.cpu().numpy()

    def train_step(
        self, images: np.ndarray, labels: np.ndarray, learning_rate: float
    ) -> tuple[Callable[[], Any], float]:
        """Return a program of loss, gradient and AdamW, and its first run's seconds."""
        torch = self._torch
        self.network.train()
        self.network.bases = None
        tensor = self._images(images)
        target = torch.from_numpy(labels.astype(np.int64)).to(self.device)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=learning_rate)
        loss_fn = self._call(self.network.loss)

        def run():
            with self._autocast():
                loss = loss_fn(tensor, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            self._wait()
            return loss

        start = time.perf_counter()
        run()
        return run, time.perf_counter() - start

    def device_peak_mb(self, run: Callable[[], Any]) -> float | None:
        """Return what a run adds to the memory of a GPU; None on a CPU."""
        if self.device == "cpu":
            return None
        cuda = self._torch.cuda
        cuda.reset_peak_memory_stats()
        before = cuda.memory_allocated()
        run()
        return (cuda.max_memory_allocated() - before) / 2**20


def _load(path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("opponent_network", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
