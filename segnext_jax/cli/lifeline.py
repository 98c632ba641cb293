"""Connections by which the processes of a run learn that one of them has failed.

Process 0 holds a connection to each of the other processes. A process that fails sends
its sentence, which process 0 passes on. A process that is killed sends nothing, but the
kernel closes its connection. JAX's own heartbeats notice a killed process after 100 s,
and do not notice a failed one.
"""

import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from typing import IO

# Seconds until a process has to have connected.
_CONNECT_TIMEOUT = 30
# A machine that has lost its power closes no connection, so the kernel sends probes:
# seconds of silence before the first, seconds between two, number without an answer.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 5}

GONE = (
    "it was killed, or its machine is lost. Look into its log and that of its machine; "
    "the same command goes on from the newest checkpoint"
)


class Lifeline:
    """One process's end of the connections."""

    def __init__(self, process: int, end: Callable[[int, str], None]) -> None:
        """Connect nothing yet.

        Args:
          process: Number of this process among those of the run.
          end: Called once with number and sentence of another process that failed, in a
            thread; it is to end this process.
        """
        self._process = process
        self._end = end
        self._others: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._is_over = False

    def listen(self) -> str:
        """Let the other processes connect; return what they need for it."""
        is_both = socket.has_dualstack_ipv6()
        listener = socket.create_server(
            ("", 0),
            family=socket.AF_INET6 if is_both else socket.AF_INET,
            dualstack_ipv6=is_both,
        )
        # Other machines can reach the port, so a process must send the key of the run.
        key = secrets.token_hex(16)
        self._start(self._accept, listener, key)
        return json.dumps([listener.getsockname()[1], key])

    def connect(self, host: str, invitation: str) -> None:
        """Connect to process 0.

        Args:
          host: Name or address of its machine.
          invitation: What its `listen` returned.

        Raises:
          OSError: If process 0 cannot be reached.
        """
        port, key = json.loads(invitation)
        connection = socket.create_connection((host, port), _CONNECT_TIMEOUT)
        connection.settimeout(None)
        self._others[0] = _kept_alive(connection)
        _send(connection, {"key": key, "process": self._process})
        self._start(self._watch, connection.makefile(), 0)

    def fail(self, sentence: str) -> None:
        """Tell the other processes, unless another one has failed before."""
        self._tell(self._process, sentence)

    def leave(self) -> None:
        """Say that this process ends in order."""
        for connection in self._others.values():
            _send(connection, {"process": self._process})

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _accept(self, listener: socket.socket, key: str) -> None:
        while True:
            connection, _ = listener.accept()
            self._start(self._greet, _kept_alive(connection), key)

    def _greet(self, connection: socket.socket, key: str) -> None:
        connection.settimeout(_CONNECT_TIMEOUT)
        lines = connection.makefile()
        try:
            greeting = json.loads(lines.readline())
            is_ours = secrets.compare_digest(greeting["key"], key)
        except (OSError, ValueError, KeyError, TypeError):
            is_ours = False
        if not is_ours:
            connection.close()
            return
        connection.settimeout(None)
        self._others[greeting["process"]] = connection
        self._watch(lines, greeting["process"])

    def _watch(self, lines: IO[str], process: int) -> None:
        """Read what another process sends until it ends."""
        has_left = False
        try:
            for line in lines:
                message = json.loads(line)
                if "sentence" in message:
                    self._hear(message["process"], message["sentence"])
                has_left = True
        except OSError as error:
            logging.getLogger(__name__).warning("process %d: %s", process, error)
        if not has_left:
            self._hear(process, GONE)

    def _hear(self, process: int, sentence: str) -> None:
        if self._tell(process, sentence):
            self._end(process, sentence)

    def _tell(self, process: int, sentence: str) -> bool:
        """Tell all the others; return False if there was a failure before."""
        with self._lock:
            if self._is_over:
                return False
            self._is_over = True
        for other, connection in list(self._others.items()):
            if other != process:
                _send(connection, {"process": process, "sentence": sentence})
        return True


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS lacks some.
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _send(connection: socket.socket, message: dict[str, object]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        # The other process is gone: the thread that reads from it reports that.
        pass
