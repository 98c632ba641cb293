"""Several processes of one run on this machine."""

import os
import pathlib
import socket
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NUM_DEVICES = 8


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Processes:
    """Processes of one run; their logs are files, so that none waits for a reader."""

    def __init__(self, folder, commands, num_devices):
        """Start one process for each command."""
        share = num_devices // len(commands)
        count = "--xla_force_host_platform_device_count="
        flags = os.environ["XLA_FLAGS"].replace(f"{count}8", f"{count}{share}")
        port = free_port()
        self.logs = [folder / f"{index}.log" for index in range(len(commands))]
        self.running = []
        for index, (arguments, log) in enumerate(zip(commands, self.logs, strict=True)):
            several = [
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={len(commands)}",
                f"--process_id={index}",
            ]
            with log.open("w") as file:
                process = subprocess.Popen(
                    [*arguments, *(several if len(commands) > 1 else [])],
                    stdout=file,
                    stderr=file,
                    cwd=ROOT,
                    env={**os.environ, "XLA_FLAGS": flags},
                )
            self.running.append(process)

    def wait_until(self, is_reached):
        """Return when it is, or when a process has ended."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not is_reached():
            if any(process.poll() is not None for process in self.running):
                break
            time.sleep(0.05)

    def ended(self, timeout):
        """Return exit codes and logs; those that still run then are killed."""
        deadline = time.monotonic() + timeout
        for process in self.running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        codes = [process.returncode for process in self.running]
        return codes, [log.read_text() for log in self.logs]


@pytest.fixture(scope="module")
def start_processes(tmp_path_factory):
    """Start processes of one run, which end with the tests of the file."""
    started = []

    def start(*commands, num_devices=2):
        folder = tmp_path_factory.mktemp("logs")
        started.append(Processes(folder, commands, num_devices))
        return started[-1]

    yield start
    for processes in started:
        processes.ended(0)
