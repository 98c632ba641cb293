"""What more devices cost: the efficiency of training, from counted programs.

    python -m benchmarks.scale benchmarks/scale_counts.jsonl

Reads lines that `benchmarks.device_program` printed: for each target, work and variant
one program of one device and one of many. A step takes, one after the other:

- memory: its bytes over the bandwidth of the memory; bytes grow linearly with the
  images of a device, between the two programs;
- launches: its kernels, each a gap of some microseconds (`LAUNCH`; none on TPUs);
- latency: its exchanges, most of them a few values of a BatchNorm, that wait for each
  other: a latency each;
- transfer: the bytes of the exchanges, nearly all of them gradients, which are summed
  when the backward pass ends: 2 (N - 1) / N times them over the bandwidth of the link.

Bandwidths and latencies (`MACHINES`) are assumptions. The efficiency is images per
second and device over those of the table's first row, one device by itself.
"""

import argparse
import collections
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Links(NamedTuple):
    """How devices talk.

    Attributes:
      num_devices: At most so many.
      bandwidth: Bytes that a device sends per second in a sum over all.
      latency: Seconds that the smallest exchange takes.
    """

    num_devices: int
    bandwidth: float
    latency: float


class Machine(NamedTuple):
    """Devices of a kind.

    Attributes:
      bandwidth: Bytes per second of a device's memory.
      launch: Seconds between two kernels.
      of_host: Devices of a host.
      links: Nearest first.
    """

    bandwidth: float
    launch: float
    of_host: int
    links: tuple[Links, ...]


# NVLink inside a machine of 8, 400 Gb/s each between them; a v5e's links have 45 GB/s a
# direction, and a ring in two directions only where an axis has 16 chips.
MACHINES = {
    "h100": Machine(
        *(3.35e12, 2e-6, 8), (Links(8, 300e9, 15e-6), Links(4096, 40e9, 50e-6))
    ),
    "v5e": Machine(
        *(0.819e12, 0.0, 4), (Links(64, 90e9, 10e-6), Links(256, 180e9, 25e-6))
    ),
}


# Numbers of devices of the table of exchanges.
DEVICES = (8, 64, 256)


class Recipe(NamedTuple):
    """A training that is looked at.

    Attributes:
      title: For the table.
      batches: Pairs of a number of devices and the images of a step.
      crops: Crops per second that one core makes (BENCHMARKS.md).
    """

    title: str
    batches: tuple[tuple[int, int], ...]
    crops: float


RECIPES = {
    "train": Recipe(
        "ADE20K",
        ((1, 16), (8, 16), (8, 128), (64, 64), (64, 1024), (256, 256), (256, 1024)),
        590,
    ),
    "pretrain": Recipe("ImageNet", ((1, 128), (8, 1024), (64, 1024), (256, 1024)), 555),
}


class Program(NamedTuple):
    """What was counted of a variant.

    Attributes:
      fixed: Bytes of a device's step that do not depend on its images.
      per_image: Bytes of each image.
      kernels: Of a device's step, on one device and on many.
      exchanges: Of a step on many devices.
      exchanged: Bytes of their results on each device.
    """

    fixed: float
    per_image: float
    kernels: tuple[int, int]
    exchanges: int
    exchanged: float


def programs(lines: list[dict]) -> dict[tuple[str, str, str], Program]:
    """Return a program of each target, work and variant that has two lines."""
    groups = collections.defaultdict(list)
    for line in lines:
        if line["fsdp"] == 1:
            key = line["target"].split(":")[0], line["work"], line["variant"]
            groups[key].append(line)
    found = {}
    for key, rows in groups.items():
        rows.sort(key=lambda row: row["batch"] / row["devices"])
        least, most = rows[0], rows[-1]
        images = [row["batch"] / row["devices"] for row in (least, most)]
        if images[0] == images[1]:
            continue
        moved = [
            1e9 * row.get("cost_analysis_gigabytes", row["gigabytes"])
            for row in (least, most)
        ]
        slope = (moved[1] - moved[0]) / (images[1] - images[0])
        found[key] = Program(
            fixed=moved[0] - slope * images[0],
            per_image=slope,
            kernels=(most["kernels"], least["kernels"]),
            exchanges=least["exchanges"],
            # Counted are operands and results.
            exchanged=1e9 * least["exchanged_gigabytes"] / 2,
        )
    return found


def parts(
    program: Program, machine: Machine, num_devices: int, images: float
) -> dict[str, float]:
    """Return the seconds of each part of a step."""
    links = next(link for link in machine.links if num_devices <= link.num_devices)
    is_shared = num_devices > 1
    share = 2 * (num_devices - 1) / num_devices
    return {
        "memory": (program.fixed + images * program.per_image) / machine.bandwidth,
        "launches": program.kernels[is_shared] * machine.launch,
        "latency": is_shared * program.exchanges * links.latency,
        "transfer": share * program.exchanged / links.bandwidth,
    }


def _rows(program: Program, machine: Machine, recipe: Recipe) -> Iterator[list[str]]:
    """Yield the cells of each number of devices."""
    alone = None
    for num_devices, batch in recipe.batches:
        images = batch / num_devices
        seconds = parts(program, machine, num_devices, images)
        rate = images / sum(seconds.values())
        alone = alone or rate
        of_host = rate * min(num_devices, machine.of_host)
        yield [
            *(str(num_devices), f"{batch:,}"),
            *(f"{1e3 * part:.1f}" for part in seconds.values()),
            *(f"{1e3 * sum(seconds.values()):.1f}", f"{rate / alone:.0%}"),
            *(f"{of_host:,.0f}", f"{of_host / recipe.crops:.0f}"),
        ]


def _print_table(title: str, columns: Iterable[str], rows: Iterable[list[str]]) -> None:
    columns = list(columns)
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Print a table of exchanges for each machine, and one for each pair of counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("counts", type=pathlib.Path, help="lines of device_program")
    file = parser.parse_args().counts
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    counted = programs(lines)
    for target, machine in MACHINES.items():
        rows = []
        for (device, work, variant), program in counted.items():
            if (device, work) != (target, "train"):
                continue
            row = [variant, f"{program.exchanged / 1e6:.0f}", str(program.exchanges)]
            for num_devices in DEVICES:
                seconds = parts(program, machine, num_devices, 0)
                row += (
                    f"{1e3 * seconds[part]:.2f}" for part in ("transfer", "latency")
                )
            rows.append(row)
        columns = [f"{n}: {part}" for n in DEVICES for part in ("transfer", "latency")]
        columns = ["variant", "MB", "exchanges", *columns]
        _print_table(f"{target}, milliseconds of exchanges", columns, rows)
    for (target, work, variant), program in counted.items():
        _print_table(
            f"{target}, {variant}, {RECIPES[work].title}, milliseconds of a step",
            (
                *("devices", "batch", "memory", "launches", "latency", "transfer"),
                *("step", "efficiency", "images/s of a host", "cores for them"),
            ),
            _rows(program, MACHINES[target], RECIPES[work]),
        )


if __name__ == "__main__":
    main()
