"""Try malformed inputs, print a table: `python -m tests.robustness --inputs=3000`."""

import argparse
import sys
import time

from tests.robustness import trial


def main(arguments: list[str]) -> int:
    """Run the trial; return 1 if an input ended as none should."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness")
    parser.add_argument(
        "--inputs", type=int, default=3000, help="of all doors together"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--door", choices=trial.DOORS, help="the only one (default: all)"
    )
    options = parser.parse_args(arguments)
    start = time.monotonic()
    doors = [options.door] if options.door else trial.DOORS
    results = trial.run(options.inputs, options.seed, doors)
    bad = [result for result in results if result.outcome not in trial.GOOD]
    for result in bad:
        sys.stdout.write(f"{result}\n")
    minutes = (time.monotonic() - start) / 60
    sys.stdout.write(
        f"{trial.table(results)}\n\nseed {options.seed}, {minutes:.1f} min\n"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
