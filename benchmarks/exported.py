r"""Time of exported ONNX files on a CPU: onnxruntime, OpenVINO, JAX, PyTorch, in turn.

    pip install openvino torch==2.13.0
    python -m benchmarks.exported --variant tiny base

Logits are from normalised images, labels from bytes; all in float32. "OpenVINO torch"
is the PyTorch network as OpenVINO itself converts it. `--one_core` counts the time that
a single core works: that can be had on a machine with other work, where the threads of
a program wait for the one that was interrupted.
"""

import argparse
import os
import sys

# Before the libraries start their threads.
if "--one_core" in sys.argv:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import torch

from benchmarks.compare.programs import Case, make_inputs, ours
from benchmarks.compare.torch_network import TorchNetwork
from segnext_jax.benchmark.programs import take_turns
from segnext_jax.cli.command import keep_freed_memory, parse_size
from segnext_jax.export import onnx_graph
from segnext_jax.export.program import Signature
from segnext_jax.models.segnext import VARIANTS
from segnext_jax.predict.predictor import Predictor

# Where a CPU has it, OpenVINO would take bfloat16.
NUM_THREADS = len(os.sched_getaffinity(0))
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": NUM_THREADS}
LARGEST_DIFFERENCE = 1e-3


def main() -> None:
    """Print a table."""
    options = _parse()
    keep_freed_memory()
    names = ["JAX", "onnxruntime", "OpenVINO", "OpenVINO torch"]
    names += [f"torch {form}" for form in options.torch_forms]
    unit = "processor" if options.one_core else "median"
    print(f"| {unit} ms | {' | '.join(names)} |")
    print("|---|" + "---|" * len(names))
    for variant in options.variants:
        for work in options.works:
            case = Case(work, variant, parse_size(options.size, "--size", 32), batch=1)
            forms = _forms(case, options)
            results = {name: form() for name, form in forms.items()}
            for name, result in results.items():
                _check(name, work, result, results["JAX"])
            times = take_turns(forms, options.rounds)
            cells = [f"{times[n].columns(1)[f'{unit} ms']:.0f}" for n in names]
            print(f"| {variant} {work} | {' | '.join(cells)} |", flush=True)


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--variant", dest="variants", choices=VARIANTS, nargs="+", default=["tiny"]
    )
    parser.add_argument("--work", dest="works", nargs="+", default=["logits", "labels"])
    parser.add_argument(
        "--torch_forms", nargs="*", default=["eager", "channels_last", "compile"]
    )
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--one_core", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def _forms(case: Case, options: Any) -> dict[str, Callable]:
    is_logits = case.work == "logits"
    inputs = make_inputs(case)
    images = inputs.batches[0].images[0]
    if is_logits:
        images = images - np.float32(inputs.config.data.mean)
        images /= np.float32(inputs.config.data.std)
    signature = Signature(
        *(images.shape[1:3], len(images)),
        input="float" if is_logits else "uint8",
        output=case.work,
    )
    predictor = Predictor(inputs.variables, inputs.config)
    data = onnx_graph.convert(predictor, signature).SerializeToString()
    session = onnx_graph.Session(data, NUM_THREADS)
    # Each of its own: the two forms of a network would share what it keeps.
    networks = {
        form: TorchNetwork(case, form, inputs)
        for form in ("eager", *options.torch_forms)
    }
    forms = {
        "JAX": ours(case, inputs),
        **{f"torch {form}": networks[form].program() for form in networks},
    }
    runs: dict[str, Callable] = {
        name: lambda program=program: program.to_numpy(program.run())
        for name, program in forms.items()
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", FLOAT32)
    runs["onnxruntime"] = lambda: session(images)
    runs["OpenVINO"] = lambda: compiled(images)[0]
    runs["OpenVINO torch"] = _converted(networks["eager"], images, is_logits)
    return runs


def _converted(
    torch_network: TorchNetwork, images: np.ndarray, is_logits: bool
) -> Callable:
    network = torch_network._network.requires_grad_(False)

    class Labels(torch.nn.Module):
        def forward(self, images):
            images = torch_network._normalize(images)
            return network.predict(images).argmax(dim=1).to(torch.uint8)

    module = network if is_logits else Labels()
    if is_logits:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    with torch.no_grad():
        model = openvino.convert_model(
            module.eval(), example_input=torch.tensor(images)
        )
    compiled = openvino.Core().compile_model(model, "CPU", FLOAT32)
    if is_logits:
        return lambda: compiled(images)[0].transpose(0, 2, 3, 1)
    return lambda: compiled(images)[0]


def _check(name: str, work: str, result: np.ndarray, wanted: np.ndarray) -> None:
    if work == "labels":
        difference = np.mean(result != wanted)
    else:
        difference = np.abs(result - wanted).max() / np.abs(wanted).max()
    if not difference < LARGEST_DIFFERENCE:
        raise ValueError(f"{name} must compute what JAX does: differs by {difference}.")


if __name__ == "__main__":
    main()
