"""The same works in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.compare import torch_segnext
from benchmarks.compare.programs import Case, Inputs, Program
from segnext_jax.benchmark.programs import IGNORE_LABEL
from segnext_jax.convert.weights import to_state_dict


class TorchNetwork:
    """`torch_segnext` with given weights, in one form of ``--torch_forms``.

    On a GPU that PyTorch sees it runs there. In bfloat16 it runs under autocast.
    """

    def __init__(self, case: Case, form: str, inputs: Inputs):
        """Make the network."""
        self._case, self._inputs = case, inputs
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = torch_segnext.segnext(case.variant, case.classes)
        state = to_state_dict(inputs.variables)
        model.load_state_dict(
            {k: torch.tensor(np.asarray(v)) for k, v in state.items()}
        )
        self._format = (
            torch.contiguous_format if form == "eager" else torch.channels_last
        )
        self._network = model.to(self._device, memory_format=self._format)
        self._is_compiled = form == "compile"
        if self._is_compiled:
            # Dynamo compiles a function a limited number of times, for all networks.
            torch._dynamo.reset()
        data = inputs.config.data
        self._mean, self._std = (
            torch.tensor(values, device=self._device)[None, :, None, None]
            for values in (data.mean, data.std)
        )

    def program(self) -> Program:
        """Return the case's work, which has not run yet."""
        return getattr(self, self._case.work)()

    def logits(self) -> Program:
        """Return the way from normalised images on the device to logits at 1/8."""
        images = self._normalize(torch.from_numpy(self._images).to(self._device))
        call = self._prepare(lambda images: self._network(images), len(images))
        return Program(
            lambda: self._infer(call, images),
            lambda output: output.float().permute(0, 2, 3, 1).cpu().numpy(),
        )

    def labels(self) -> Program:
        """Return the way from bytes of images to label maps, on the host."""
        images = torch.from_numpy(self._images)

        def predict(images: torch.Tensor) -> torch.Tensor:
            scores = self._network.predict(self._normalize(images))
            return scores.argmax(dim=1).to(torch.uint8)

        call = self._prepare(predict, len(images))
        return Program(lambda: self._infer(call, images.to(self._device)).cpu().numpy())

    def evaluation(self) -> Program:
        """Return the official evaluation: one image after the other, then counts.

        Differs: The official code takes the softmax before the best class, which it
        does not change.
        """
        examples = [
            (torch.from_numpy(image[None]), torch.from_numpy(label_map))
            for image, label_map in self._inputs.photographs()
        ]
        num_classes = self._case.classes

        def count(images: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
            scores = self._network.predict(self._normalize(images))
            scores = torch.nn.functional.interpolate(
                scores, size=label_map.shape, mode="bilinear", align_corners=False
            )
            return label_map.long() * num_classes + scores.argmax(dim=1)[0]

        call = self._prepare(count, batch_size=1)

        def run() -> np.ndarray:
            total = torch.zeros(num_classes**2, dtype=torch.int64, device=self._device)
            for images, label_map in examples:
                label_map = label_map.to(self._device)
                cells = self._infer(call, images.to(self._device), label_map)
                cells = cells[label_map != IGNORE_LABEL]
                total += torch.bincount(cells, minlength=num_classes**2)
            return total.cpu().numpy().reshape(num_classes, num_classes)

        return Program(run)

    def step(self) -> Program:
        """Return normalisation, loss, gradient and AdamW, inputs on the device."""
        images = torch.from_numpy(self._images).to(self._device)
        labels = np.stack(self._inputs.batches[0].labels).astype(np.int64)
        target = torch.from_numpy(labels).to(self._device)
        self._network.train()
        self._network.bases = None
        rate = self._inputs.config.optimizer.learning_rate
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=rate, fused=True)
        loss_fn = self._compile(
            lambda images, target: self._network.loss(self._normalize(images), target)
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
            return sum(v.nbytes for v in values if v.device.type == self._device)

        return Program(run, lambda loss: loss.float().cpu().numpy(), settle=settle)

    @property
    def _images(self) -> np.ndarray:
        return self._inputs.batches[0].images[0]

    def _prepare(self, function: Callable, batch_size: int) -> Callable:
        """Return what is called for an inference."""
        self._network.eval()
        bases = self._inputs.bases(batch_size)
        self._network.bases = torch.tensor(bases, device=self._device)
        return self._compile(function)

    def _compile(self, function: Callable) -> Callable:
        return torch.compile(function) if self._is_compiled else function

    def _infer(self, call: Callable, *arguments: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            output = call(*arguments)
        self._wait()
        return output

    def _normalize(self, images: torch.Tensor) -> torch.Tensor:
        images = images.permute(0, 3, 1, 2).contiguous(memory_format=self._format)
        return (images.float() - self._mean) / self._std

    def _autocast(self) -> Any:
        is_bfloat16 = self._case.dtype == "bfloat16"
        return torch.autocast(self._device, torch.bfloat16, enabled=is_bfloat16)

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
