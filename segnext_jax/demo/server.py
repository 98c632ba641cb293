"""The server of the page, Python's own: one photograph at a time, kept in memory."""

import errno
import http.server
import json
import mimetypes
import pathlib
import sys
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any

from segnext_jax.cli.command import is_of_a_user
from segnext_jax.demo import page
from segnext_jax.images.headers import read_header
from segnext_jax.predict.predictor import Predictor

_FIRST_PORT, _LAST_PORT = 7860, 7960
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Nothing is loaded from, or sent to, another place.
_POLICY = "default-src 'self'; img-src 'self' data: blob:"


class Server(http.server.ThreadingHTTPServer):
    """Serves the page of a network; use it as a context, see `serve_forever`."""

    daemon_threads = True
    # Two servers of one port would share the photographs between them.
    allow_reuse_port = False

    def __init__(
        self,
        predictor: Predictor,
        checkpoint: str,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        examples: Mapping[str, bytes] | None = None,
        max_upload_mb: int = 50,
    ):
        """Listen.

        Args:
          predictor: The network.
          checkpoint: Where the weights come from.
          host: Address to listen at; "0.0.0.0" for other machines, too.
          port: Port to listen at; None: the first that is free from 7860.
          examples: Contents of image files to try, by name.
          max_upload_mb: Size of the largest file that is taken, in megabytes.

        Raises:
          ValueError: If the port is in use.
        """
        self.predictor = predictor
        self.max_upload_mb = max_upload_mb
        # A photograph takes much memory, and the whole machine.
        self.turn = threading.Lock()
        names = [urllib.parse.quote(name, safe="") for name in examples or {}]
        addresses = [f"examples/{number}/{name}" for number, name in enumerate(names)]
        metadata = page.about(predictor, checkpoint) | {
            "examples": addresses,
            "max_upload_mb": max_upload_mb,
        }
        contents = zip(addresses, (examples or {}).values(), strict=True)
        self.files = {
            **page.read_files(),
            "metadata.json": json.dumps(metadata).encode(),
            **dict(contents),
        }
        self.is_local = host in _LOCAL_NAMES
        ports = range(_FIRST_PORT, _LAST_PORT) if port is None else [port]
        for number in ports:
            try:
                super().__init__((host, number), _Handler)
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise ValueError(
            f"--port={ports[0]} must be free on {host}, and is not. Choose another, or "
            "leave it out."
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of pages that are closed before their answer; else as ever."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        host, port = self.server_address[:2]
        return f"http://{host}:{port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """Send a file of the page."""
        name = urllib.parse.urlsplit(self.path).path.removeprefix("/") or "index.html"
        if not self._is_for_us():
            return
        if name not in self.server.files:
            self._send(404, b"there is no such file", "text/plain")
            return
        content = self.server.files[name]
        # Images of prepared sets have names without a suffix.
        kind = f"image/{read_header(content).format.lower()}"
        self._send(200, content, mimetypes.guess_type(name)[0] or kind)

    def do_POST(self) -> None:
        """Look at the photograph that is sent, or say why not."""
        if not self._is_for_us():
            return
        address = urllib.parse.urlsplit(self.path)
        length = self.headers.get("Content-Length", "")
        limit = self.server.max_upload_mb
        if address.path != "/look" or not length.isdecimal():
            self._refuse(400, "a photograph is sent to look?name=NAME, with its length")
        elif int(length) > limit * 10**6:
            size = int(length) / 1e6
            self._refuse(
                413,
                f"a photograph must have at most {limit} MB (--max_upload_mb): got "
                f"{size:.1f} MB.",
            )
        else:
            query = urllib.parse.parse_qs(address.query)
            name = pathlib.PurePath(query.get("name", ["photograph"])[0]).name
            self._look(self.rfile.read(int(length)), name or "photograph")

    def _look(self, encoded: bytes, name: str) -> None:
        try:
            with self.server.turn:
                result = page.answer(self.server.predictor, encoded, name)
        except (ValueError, OSError, FloatingPointError) as fault:
            if not is_of_a_user(fault):
                self._refuse(500, f"this photograph could not be seen: {fault}")
                raise
            self._refuse(422, str(fault))
        else:
            self._send(200, json.dumps(result).encode(), "application/json")

    def _is_for_us(self) -> bool:
        """Tell requests to this server from those of a site that poses as this one."""
        name = self.headers.get("Host", "").rpartition(":")[0]
        if self.server.is_local and name not in _LOCAL_NAMES:
            self._refuse(403, "this page is at localhost; --host=0.0.0.0 opens it")
            return False
        return True

    def _refuse(self, code: int, sentence: str) -> None:
        self._send(code, sentence.encode(), "text/plain; charset=utf-8")

    def _send(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        for header, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""
