"""A server of files on this machine: whole, in parts, moved, cut off, lying."""

import contextlib
import http.server
import threading


class FileServer:
    """What it serves, how, and what it was asked for.

    Attributes:
      url: Its address, without a slash at the end.
      files: Contents by name. ``/moved/NAME`` redirects to it, ``/page/NAME`` is a
        web page.
      cuts: After how many bytes the next connections break off.
      has_ranges: Whether it gives parts of a file.
      is_weak: Whether its tags do not promise the same bytes.
      claimed_size: Length that it claims for all files; None: the true one.
      requests: Path and range of each request.
    """

    def __init__(self, url):
        self.url = url
        self.files, self.cuts, self.requests = {}, [], []
        self.has_ranges, self.is_weak, self.claimed_size = True, False, None


class Handler(http.server.BaseHTTPRequestHandler):
    serving: FileServer

    def do_GET(self):
        serving, wanted = self.serving, self.headers.get("Range", "")
        serving.requests.append((self.path, wanted))
        folder, _, name = self.path.removeprefix("/").rpartition("/")
        if folder == "moved":
            self.send_response(302)
            self.send_header("Location", f"/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif folder == "page":
            self.answer(200, b"<html>Sign in</html>", "text/html; charset=utf-8")
        elif name not in serving.files:
            self.send_error(404)
        else:
            content = serving.files[name]
            etag = "W/" * serving.is_weak + f'"{hash(content)}"'
            if not serving.has_ranges or self.headers.get("If-Range", etag) != etag:
                wanted = ""
            start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
            if wanted and start >= len(content):
                self.send_error(416)
            else:
                self.answer(206 if wanted else 200, content[start:], etag=etag)

    def answer(self, status, content, kind="application/octet-stream", etag=""):
        serving = self.serving
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(serving.claimed_size or len(content)))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        cut = serving.cuts.pop(0) if serving.cuts else None
        self.wfile.write(content[:cut])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve():
    """Serve files of this machine while the block runs."""
    handler = type("Bound", (Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.serving = FileServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler.serving
        server.shutdown()
        thread.join()
