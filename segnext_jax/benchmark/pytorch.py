"""The same work in PyTorch, where a file with the network is given."""

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from segnext_jax.benchmark.cases import IGNORE_LABEL, Case
from segnext_jax.benchmark.memory import Counter
from segnext_jax.benchmark.programs import Program
from segnext_jax.convert.weights import to_state_dict


class Opponent:
    """A network in PyTorch with given weights, in one of `cases.FORMS`.

    The file has a function ``segnext(variant, num_classes)``, which returns a network
    with the official parameter names, an attribute ``bases`` [batch, channels, rank]
    and a method ``loss(images, labels)``.

    On a GPU that PyTorch sees it runs there. In bfloat16 it runs under autocast.
    """

    def __init__(self, path: str, form: str, num_classes: int, case: Case):
        """Load the network of a file."""
        self._case = case
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._is_bfloat16 = case.config.model.dtype == "bfloat16"
        model = _load(path).segnext(case.variant, num_classes)
        state = to_state_dict(case.variables)
        model.load_state_dict(
            {k: torch.tensor(np.asarray(v)) for k, v in state.items()}
        )
        self._format = (
            torch.contiguous_format if form == "eager" else torch.channels_last
        )
        self.network = model.to(self.device, memory_format=self._format)
        self._is_compiled = form == "compile"
        if self._is_compiled:
            # It makes only so many programs of a function, whatever the network.
            torch._dynamo.reset()
        data = case.config.data
        self._mean, self._std = (
            torch.tensor(values, device=self.device)[None, :, None, None]
            for values in (data.mean, data.std)
        )

    def logits(self) -> Program:
        """Return the way from normalised images on the device to logits at 1/8."""
        self._prepare_inference(len(self._case.images))
        images = torch.from_numpy(self._case.normalized).to(self.device)
        images = self._as_channels_first(images)
        call = self._call(lambda images: self.network(images))
        return Program(
            lambda: self._infer(call, images),
            lambda output: output.float().permute(0, 2, 3, 1).cpu().numpy(),
            counter=self._counter(),
        )

    def labels(self) -> Program:
        """Return the way from bytes of images to label maps, on the host."""
        self._prepare_inference(len(self._case.images))
        images = torch.from_numpy(self._case.images)

        def predict(images: torch.Tensor) -> torch.Tensor:
            scores = self.network.predict(self._normalize(images))
            return scores.argmax(dim=1).to(torch.uint8)

        call = self._call(predict)
        return Program(
            lambda: self._infer(call, images.to(self.device)).cpu().numpy(),
            counter=self._counter(),
        )

    def evaluation(self) -> Program:
        """Return the official evaluation: one image after the other, then counts.

        Differs: The official code takes the softmax before the best class, which it
        does not change.
        """
        self._prepare_inference(1)
        examples = [
            (torch.from_numpy(image[None]), torch.from_numpy(label_map))
            for batch in self._case.batches
            for image, label_map, is_real in zip(
                batch.images[0], batch.labels, batch.mask, strict=True
            )
            if is_real
        ]
        num_classes = self._case.model.num_classes

        def count(images: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
            scores = self.network.predict(self._normalize(images))
            scores = torch.nn.functional.interpolate(
                scores, size=label_map.shape, mode="bilinear", align_corners=False
            )
            prediction = scores.argmax(dim=1)[0]
            return label_map.long() * num_classes + prediction

        call = self._call(count)

        def run() -> np.ndarray:
            total = torch.zeros(num_classes**2, dtype=torch.int64, device=self.device)
            for images, label_map in examples:
                label_map = label_map.to(self.device)
                with torch.inference_mode(), self._autocast():
                    cells = call(images.to(self.device), label_map)
                cells = cells[label_map != IGNORE_LABEL]
                total += torch.bincount(cells, minlength=num_classes**2)
            return total.cpu().numpy().reshape(num_classes, num_classes)

        return Program(run, counter=self._counter())

    def step(self) -> Program:
        """Return normalisation, loss, gradient and AdamW, inputs on the device."""
        case = self._case
        self.network.train()
        self.network.bases = None
        images = torch.from_numpy(case.images).to(self.device)
        target = torch.from_numpy(case.labels.astype(np.int64)).to(self.device)
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=case.config.optimizer.learning_rate,
            fused=True,
        )
        loss_fn = self._call(
            lambda images, target: self.network.loss(self._normalize(images), target)
        )

        def run() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = loss_fn(images, target)
            loss.backward()
            optimizer.step()
            self._wait()
            return loss.detach()

        def settle() -> int:
            optimizer.zero_grad(set_to_none=True)
            values = [v for state in optimizer.state.values() for v in state.values()]
            return sum(v.nbytes for v in values if v.device.type == self.device)

        return Program(
            run,
            lambda loss: loss.float().cpu().numpy(),
            settle=settle,
            counter=self._counter(),
        )

    def _prepare_inference(self, batch_size: int) -> None:
        self.network.eval()
        bases = self._case.repeated_bases(batch_size)
        self.network.bases = torch.tensor(bases, device=self.device)

    def _call(self, function: Callable) -> Callable:
        return torch.compile(function) if self._is_compiled else function

    def _infer(self, call: Callable, *arguments: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            output = call(*arguments)
        self._wait()
        return output

    def _as_channels_first(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).contiguous(memory_format=self._format)

    def _normalize(self, images: torch.Tensor) -> torch.Tensor:
        return (self._as_channels_first(images).float() - self._mean) / self._std

    def _autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self._is_bfloat16)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _counter(self) -> Counter | None:
        if self.device == "cpu":
            return None
        cuda = torch.cuda
        return Counter(
            cuda.reset_peak_memory_stats,
            cuda.memory_allocated,
            cuda.max_memory_allocated,
        )


def _load(path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("opponent_network", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # torch.compile imports the modules of what it compiles once more, by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
