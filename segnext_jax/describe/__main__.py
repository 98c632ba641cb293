"""Describe a network: `segnext-jax describe --config=ade20k_base`.

Prints its modules with parameters and multiplications, the sizes of its features, and
the optimizer's parameter groups. Nothing is compiled or computed: shapes are traced.
"""

import argparse
import sys
from collections.abc import Sequence

from segnext_jax.cli import command


def main(arguments: Sequence[str]) -> None:
    """Print the description; see `--help`.

    Raises:
      ValueError: If the configuration cannot run, or describes a classifier.
    """
    options, overrides = _parse(arguments)
    from segnext_jax import config as config_lib
    from segnext_jax.datasets.resolve import resolve_spec
    from segnext_jax.describe.network import describe
    from segnext_jax.models.initialization import abstract_variables
    from segnext_jax.models.segnext import SegNeXt
    from segnext_jax.training import optimizer

    config = config_lib.load(options.config, overrides)
    size = tuple(config.data.crop_size)
    if options.size is not None:
        size = command.parse_size("x".join(options.size), "--size", 1)
    if config.task != "segmentation":
        raise ValueError(
            "--config must be one of a segmentation network, which holds the encoder, "
            f"too: {options.config} is of {config.task}. Take one of the same variant."
        )
    model = SegNeXt.from_config(config.model, resolve_spec(config.data).num_classes)
    lines = describe(model, size, options.depth)
    params = abstract_variables(model)["params"]
    groups = optimizer.summarize(params, optimizer.Optimizer.from_config(config).rules)
    lines += ["", "Optimizer groups:", *(f"  {group}" for group in groups)]
    sys.stdout.write("\n".join(lines) + "\n")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "describe",
        "Print modules, parameters, multiplications and optimizer groups.",
        command.ANY_FIELD,
    )
    parser.add_argument(
        "--config", required=True, help="name of a shipped config, or a file"
    )
    parser.add_argument(
        "--size",
        # Earlier versions took the two sides apart.
        nargs="+",
        metavar="HEIGHTxWIDTH",
        help="of the image, in pixels (default: the config's crop size)",
    )
    parser.add_argument(
        "--depth",
        type=int,
        default=3,
        help="levels of modules that are listed (default: 3)",
    )
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
