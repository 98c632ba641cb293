"""The Hugging Face hub: its addresses, and its library beside a hub of this machine."""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

import segnext_jax
from segnext_jax.weights import hub, publish

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import segnext_jax

print(segnext_jax.load("hf://user/name@main").classes)
try:
    segnext_jax.load("hf://user/other")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf://user/a-name_1.0", "user/a-name_1.0", None),
        ("hf://user/name@v1.0", "user/name", "v1.0"),
        (str(pathlib.Path("hf://user/name@refs/pr/1")), "user/name", "refs/pr/1"),
    ],
)
def test_addresses(text, repository, revision):
    assert hub.parse(text) == (repository, revision)


@pytest.mark.parametrize("text", ["hf://name", "hf://a/b/c", "hf://a/b@", "hf://a/b?x"])
def test_other_addresses_are_refused(text):
    with pytest.raises(ValueError, match="must be hf://user/name or hf://user/name@re"):
        segnext_jax.load(text)


def test_without_the_library_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ValueError, match=r"not installed: pip install 'segnext_jax\[hu"
    ):
        segnext_jax.load("hf://user/name")


class Hub(http.server.BaseHTTPRequestHandler):
    """The little of the hub's interface that fetching needs, and a folder behind it."""

    folder: pathlib.Path

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, _, _ = self.path.partition("?")
        if path.startswith("/api/models/user/name/revision/"):
            names = [{"rfilename": p.name} for p in self.folder.iterdir()]
            about = {"id": "user/name", "sha": COMMIT, "siblings": names}
            self.answer(json.dumps(about).encode())
        elif path.startswith(f"/api/models/user/name/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0"}
                for p in self.folder.iterdir()
            ]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(f"/user/name/resolve/{COMMIT}/"):
            self.answer((self.folder / path.rsplit("/", 1)[1]).read_bytes())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_a_published_network_is_fetched_and_found_again_offline(old, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    publish.main([f"--checkpoint={old / 'model'}", f"--output={old / 'shared'}"])

    def load(**variables):
        """Return the classes of the network, and why there is no other."""
        environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_ENDPOINT": endpoint, **variables}
        done = subprocess.run(
            [sys.executable, "-c", LOAD],
            env=dict(os.environ) | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n", 1)

    handler = type("Bound", (Hub,), {"folder": old / "shared"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        classes, missing = load()
        server.shutdown()
        thread.join()
    assert classes == "('sky', 'field', 'house')"
    assert missing.startswith("hf://user/other could not be fetched: 404 ")
    assert "Repository Not Found for url: " in missing
    offline, missing = load(HF_HUB_OFFLINE="1")
    assert offline == classes
    assert missing.startswith("hf://user/other could not be fetched: ")
    assert missing.endswith("a private one needs hf auth login.\n")
