"""The parts of a step that benchmarks/scale.py computes from counted programs."""

import pytest

from benchmarks import scale


def line(devices, batch, gigabytes, kernels):
    return {
        "target": "h100",
        "work": "train",
        "variant": "tiny",
        "fsdp": 1,
        "devices": devices,
        "batch": batch,
        "gigabytes": gigabytes,
        "kernels": kernels,
        "exchanges": 65 * (devices > 1),
        "exchanged_gigabytes": 0.04 * (devices > 1),
    }


def test_bytes_grow_with_the_images_of_a_device():
    lines = [line(1, 16, 35.0, 100), line(8, 16, 7.0, 120)]
    (program,) = scale.programs(lines).values()
    assert program.fixed == pytest.approx(3e9)
    assert program.per_image == pytest.approx(2e9)
    assert program.kernels == (100, 120)
    assert (program.exchanges, program.exchanged) == (65, pytest.approx(20e6))


def test_only_devices_that_share_a_batch_exchange():
    program = scale.Program(3e9, 2e9, (100, 120), exchanges=62, exchanged=17e6)
    links = scale.Links(8, 17e9, 1e-5), scale.Links(256, 8.5e9, 1e-4)
    machine = scale.Machine(1e12, 1e-6, 8, links)
    alone = scale.parts(program, machine, 1, 16)
    assert alone == pytest.approx(
        {"memory": 0.035, "launches": 1e-4, "latency": 0, "transfer": 0}
    )
    shared = scale.parts(program, machine, 64, 2)
    assert shared == pytest.approx(
        {
            "memory": 0.007,
            "launches": 1.2e-4,
            "latency": 62 * 1e-4,
            "transfer": 2 * 63 / 64 * 2e-3,
        }
    )
