import functools
import hashlib
import http.server
import pathlib
import subprocess
import sys
import threading
import zipfile

import cv2
import numpy as np
import pytest

from segnext_jax.images.decode import encode_label

# Run apart: TFDS must download and prepare without TensorFlow.
PREPARE = """
import sys
sys.path.insert(0, {here!r})
from test_segmentation import Tiny, main
from segnext_jax.preparation.downloads import Download
class Fetched(Tiny):
    downloads = (Download({url!r}, {size}, {checksum!r}),)
status = main(Fetched, sys.argv[1:])
assert "tensorflow" not in sys.modules
sys.exit(status)
"""


@pytest.fixture
def server(tmp_path):
    """Serve a folder with one archive; return its URL, its path and the requests."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.command)

    folder = tmp_path / "served"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny.zip", "w") as archive:
        for split in ("train", "val"):
            image = cv2.imencode(".jpg", np.zeros((5, 6, 3), np.uint8))[1].tobytes()
            mask = encode_label(np.full((5, 6), 2, np.uint8))
            archive.writestr(f"images/{split}/x.jpg", image)
            archive.writestr(f"masks/{split}/x.png", mask)
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        port = serving.server_port
        yield f"http://127.0.0.1:{port}/tiny.zip", folder / "tiny.zip", requests
        serving.shutdown()
        thread.join()


def run(url, size, checksum, tmp_path):
    here = str(pathlib.Path(__file__).parent)
    code = PREPARE.format(here=here, url=url, size=size, checksum=checksum)
    return subprocess.run(
        [sys.executable, "-c", code, f"--data_dir={tmp_path}/prepared"],
        capture_output=True,
        text=True,
    )


def test_an_archive_is_fetched_checked_and_read_without_unpacking(server, tmp_path):
    url, archive, requests = server
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    done = run(url, 1000, f"md5:{md5}", tmp_path)
    assert done.returncode == 0, done.stderr
    progress = [line.split()[1:4] for line in done.stderr.splitlines()]
    assert [line[:2] for line in progress] == [
        ["download", "tiny.zip"],
        ["tiny", "train"],
        ["tiny", "val"],
    ]
    assert done.stdout.endswith("tiny/1.0.0: 1 train, 1 val.\n")
    assert requests.count("GET") == 1
    kept = [
        p for p in (tmp_path / "prepared").rglob("*") if p.suffix in (".zip", ".jpg")
    ]
    assert kept == [tmp_path / "prepared/tiny/downloads/tiny.zip"]

    # What is fetched already is not fetched again.
    for path in (tmp_path / "prepared/tiny/1.0.0").iterdir():
        path.unlink()
    (tmp_path / "prepared/tiny/1.0.0").rmdir()
    assert run(url, 1000, f"md5:{md5}", tmp_path).returncode == 0
    assert requests.count("GET") == 1
    kept[0].write_bytes(b"x")
    for path in (tmp_path / "prepared/tiny/1.0.0").iterdir():
        path.unlink()
    (tmp_path / "prepared/tiny/1.0.0").rmdir()
    error = run(url, 1000, f"md5:{md5}", tmp_path).stderr
    assert f"{kept[0]} is not {url}: its md5 checksum must be" in error


@pytest.mark.parametrize(
    ("size", "checksum", "message"),
    [
        (1000, "sha1:" + 40 * "0", "its sha1 checksum must be "),
        (10**18, "", "GiB for downloads and prepared files"),
    ],
)
def test_another_checksum_or_a_full_disk_stops(
    size, checksum, message, server, tmp_path
):
    done = run(server[0], size, checksum, tmp_path)
    assert done.returncode == 1
    (error,) = [
        line for line in done.stderr.splitlines() if "download tiny" not in line
    ]
    assert error.startswith("error: ") and message in error
    if "GiB" in message:
        assert server[2] == []
