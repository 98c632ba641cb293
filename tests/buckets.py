"""Servers of buckets on loopback, behind a network that can fail."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

BUCKET = "bucket"
_SERVERS = {
    "s3": "from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])",
    # It answers one request after another; of those that wait it would lose the sixth,
    # which a kernel sends again seconds later. And it would take a carriage return that
    # ends a file, and the line feed that gcsfs sends after it, for one end of a line.
    "gs": r"""
import email.parser, http.server
from gcp_storage_emulator.server import create_server
http.server.HTTPServer.request_queue_size = 128
parse = email.parser.BytesParser.parsebytes
email.parser.BytesParser.parsebytes = lambda parser, text: parse(
    parser, text.replace(b"\n--==0==", b"\r\n--==0==")
)
create_server("127.0.0.1", {port}, True, "bucket").run()
""",
}
# One try each of botocore's, of which s3fs does five; and no question to a machine of
# a cloud, which takes seconds to be silent.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_GCE_CHECK": "true",
}
# struct linger: on, for no second.
_RESET = struct.pack("ii", 1, 0)


class Network:
    """Passes connections on to a server.

    Attributes:
      url: Its own address.
      is_up: Whether it accepts connections.
      resets: Whether it resets, instead of closes, the connections it does not accept.
      cut_after: Bytes that still go to the server before all is cut; None: no end.
      delay: Seconds that each piece waits.
    """

    def __init__(self, port):
        """Listen; ``port`` is the server's."""
        self.is_up, self.cut_after, self.delay, self.resets = True, None, 0.0, False
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def cut(self):
        """Cut what is open, and accept nothing more."""
        self.is_up = False
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        """Be a good network again."""
        self.is_up, self.cut_after, self.delay, self.resets = True, None, 0.0, False

    def _listen(self):
        while True:
            client, _ = self._listener.accept()
            if not self.is_up:
                if self.resets:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client):
        address = "127.0.0.1", self._port
        with client, socket.create_connection(address) as server:
            self._open |= {client, server}
            ends = server, client, False
            back = threading.Thread(target=self._pass, args=ends, daemon=True)
            back.start()
            self._pass(client, server, True)
            back.join()
            self._open -= {client, server}

    def _pass(self, source, target, is_upload):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self.delay)
                if is_upload and self.cut_after is not None:
                    self.cut_after -= len(piece)
                    if self.cut_after < 0:
                        self.cut()
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def serve():
    """Yield the network of each scheme; what this process starts uses them, too."""
    ports = {scheme: _free_port() for scheme in _SERVERS}
    environment = os.environ | ENVIRONMENT
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program.format(port=ports[scheme])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for scheme, program in _SERVERS.items()
    ]
    networks = {scheme: Network(port) for scheme, port in ports.items()}
    environment |= {
        "AWS_ENDPOINT_URL": networks["s3"].url,
        "STORAGE_EMULATOR_HOST": networks["gs"].url,
    }
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        for port in ports.values():
            _wait_for(port)
        bucket = f"http://127.0.0.1:{ports['s3']}/{BUCKET}"
        urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")).close()
        yield networks
    finally:
        os.environ.clear()
        os.environ.update(before)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _wait_for(port):
    for _ in range(600):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.1)
    raise TimeoutError(port)
