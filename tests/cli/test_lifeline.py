"""One process's error is the run's: real processes, each in the middle of exchanges."""

import json
import signal
import socket
import sys

import pytest

from segnext_jax.cli.lifeline import GONE, Lifeline

# Exchanges for ever; with --fault something goes wrong after the third.
PROGRAM = """
import argparse, sys, threading, time
from segnext_jax.cli import command, processes

parser = argparse.ArgumentParser()
parser.add_argument("--fault", default="")
parser.add_argument("--coordinator")
parser.add_argument("--num_processes", type=int)
parser.add_argument("--process_id", type=int)

def refuse():
    raise OSError("the mask 'street_7' cannot be decoded")

def main(arguments):
    options = vars(parser.parse_args(arguments))
    fault = options.pop("fault")
    with processes.joined(processes.ProcessOptions(True, **options)):
        from jax.experimental import multihost_utils
        for step in range(10**6):
            multihost_utils.sync_global_devices(str(step))
            if step == 3:
                # At once: unbuffered, print writes the end of a line by itself.
                print("going\\n", end="", flush=True)
                if fault == "error":
                    refuse()
                if fault == "bug":
                    {}[step]
                if fault == "stuck":
                    try:
                        refuse()
                    except OSError as error:
                        processes.fail_soon(error)
                        time.sleep(1000)
                if fault == "end":
                    break
        if fault == "end":
            return

if sys.argv[1:2] == ["--fault=stuck"]:
    processes._CLOSE_TIMEOUT = 2
sys.exit(command.run(main, sys.argv[1:]))
"""


@pytest.fixture
def start(start_processes):
    def begin(*faults):
        commands = [
            [sys.executable, "-c", PROGRAM, *([f"--fault={fault}"] if fault else [])]
            for fault in faults
        ]
        processes = start_processes(*commands, num_devices=len(faults))
        processes.wait_until(
            lambda: all("going" in log.read_text() for log in processes.logs)
        )
        return processes

    return begin


@pytest.mark.parametrize("index", [0, 1])
def test_the_error_of_one_is_said_by_all(start, index):
    faults = ["", ""]
    faults[index] = "error"
    codes, logs = start(*faults).ended(60)
    assert codes == [1, 1], logs
    sentence = "the mask 'street_7' cannot be decoded"
    assert logs[index].endswith(f"\nerror: {sentence}\n")
    assert logs[1 - index].endswith(
        f"error: process {index} ended the run: {sentence}\n"
    )
    assert not any("Traceback" in log for log in logs)


def test_a_bug_keeps_its_traceback_and_ends_the_others(start):
    codes, logs = start("", "bug").ended(60)
    assert codes == [1, 1], logs
    assert "Traceback" in logs[1] and "KeyError: 3" in logs[1]
    assert logs[0].endswith("error: process 1 ended the run: KeyError: 3\n")


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_process_ends_the_others(start, index):
    processes = start("", "")
    processes.running[index].kill()
    codes, logs = processes.ended(60)
    assert codes[index] == -signal.SIGKILL
    assert codes[1 - index] == 1, logs
    assert f"error: process {index} ended the run: {GONE}\n" in logs[1 - index]


def test_an_interrupt_of_one_ends_all(start):
    processes = start("", "")
    processes.running[1].send_signal(signal.SIGINT)
    codes, logs = processes.ended(60)
    assert codes == [1, 130], logs
    assert logs[1].endswith("interrupted\n")
    assert logs[0].endswith("error: process 1 ended the run: interrupted\n")


def test_a_process_that_cannot_close_its_files_ends_all_the_same(start):
    codes, logs = start("stuck", "").ended(60)
    assert codes == [1, 1], logs
    sentence = "error: process 0 ended the run: the mask 'street_7' cannot be decoded"
    assert all(sentence in log for log in logs)


@pytest.mark.slow
def test_the_error_of_one_of_three_reaches_the_third(start):
    codes, logs = start("", "error", "").ended(60)
    assert codes == [1, 1, 1], logs
    assert all("the mask 'street_7' cannot be decoded" in log for log in logs)


def test_an_orderly_end_is_no_failure(start):
    codes, logs = start("end", "end").ended(60)
    assert codes == [0, 0], logs


def test_a_stranger_at_the_port_is_sent_away():
    heard = []
    lifeline = Lifeline(0, lambda *failure: heard.append(failure))
    port, _ = json.loads(lifeline.listen())
    for greeting in (
        b"GET / HTTP/1.1\n",
        b'{"key": "guess", "process": 1}\n',
        b"[1]\n",
    ):
        with socket.create_connection(("127.0.0.1", port), 10) as stranger:
            stranger.sendall(greeting + b'{"process": 1, "sentence": "ha"}\n')
            try:
                assert stranger.recv(1) == b""
            except ConnectionResetError:
                pass
    assert not heard
