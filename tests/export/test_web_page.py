"""The page of `--format=web` in a browser gives onnxruntime's labels."""

import base64
import functools
import http.server
import io
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

from segnext_jax.cli import command
from segnext_jax.export import onnx_graph, web_page
from segnext_jax.export.__main__ import main
from segnext_jax.images.decode import decode_image
from segnext_jax.pipeline import Fitting

ROOT = pathlib.Path(__file__).parents[2]
# A photograph that developers' machines have.
REAL = ROOT.parent / "shared/data/camvid/images/val/0016E5_07959.jpg"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None, reason="needs npm, which fetches onnxruntime-web"
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"
)


# Waits for the page within it, and tells the server what that shows.
WATCHER = """<iframe id="page" src="/?image=photograph.jpg"></iframe><script>
setInterval(() => {
  const page = document.getElementById("page").contentDocument;
  const text = page.getElementById("status")?.textContent ?? "";
  if (!/Seen|could not/.test(text)) return;
  fetch("/seen", { method: "POST", body: page.documentElement.outerHTML });
}, 200);
</script>"""


class StaticFiles(http.server.SimpleHTTPRequestHandler):
    """As from any host of them; with what the watcher tells."""

    def do_POST(self):
        """Take the page."""
        length = int(self.headers["Content-Length"])
        self.server.pages.put(self.rfile.read(length).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def open_in_browser(site, profile):
    """Return the HTML of the page once it has seen the photograph."""
    (site / "watcher.html").write_text(WATCHER)
    handler = functools.partial(StaticFiles, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.pages = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/watcher.html"
        options = ["--headless", "--no-sandbox", "--disable-gpu"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-port=0"]
        # A session of its own: what it starts ends with it.
        browser = subprocess.Popen(
            [CHROMIUM, *options, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return server.pages.get(timeout=180)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()


@pytest.fixture(scope="module")
def site(checkpoint_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("sites") / "site"
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={path}", "--format=web"]
    assert command.run(main, arguments) == 0
    return path


@needs_npm
def test_folder_is_whole_and_its_sizes_are_open(site):
    names = {str(path.relative_to(site)) for path in site.rglob("*.*")}
    page = {"index.html", "web_page.js", "web_page.css", "result_page.js"}
    runtime = {f"onnxruntime/{name}" for name in web_page.RUNTIME}
    files = {"metadata.json", "model.onnx", "result_page.css"}
    assert names == page | runtime | files
    metadata = json.loads((site / "metadata.json").read_text())
    assert metadata["input"]["shape"] == [1, "height", "width", 3]
    text = "".join((site / name).read_text() for name in page)
    # Nothing is loaded from, or sent to, another place.
    assert not re.search(r"https?://", text)


def draw_photograph(path):
    """Write a picture with soft and sharp edges, of odd sides."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    image = noise.resize((301, 213), Image.Resampling.BICUBIC)
    image.paste((20, 90, 200), (40, 60, 111, 150))
    image.save(path, quality=92)


@needs_npm
@needs_chromium
@pytest.mark.parametrize(
    ("photograph", "scale", "alignment"),
    [
        ("real", None, "resize"),
        ("drawn", None, "resize"),
        ("drawn", (180, 150), "resize"),
        ("drawn", (180, 150), "pad"),
    ],
)
def test_browser_gives_onnxruntimes_labels(
    photograph, scale, alignment, site, tmp_path
):
    path = site / "photograph.jpg"
    if photograph == "drawn":
        draw_photograph(path)
    elif REAL.is_file():
        shutil.copy(REAL, path)
    else:
        pytest.skip(f"needs ../shared/data/{REAL.name}; the drawn one stands in")
    # The page reads it there, and nowhere else.
    metadata = json.loads((site / "metadata.json").read_text())
    metadata["resize"] |= {"fit_into": scale, "alignment": alignment}
    (site / "metadata.json").write_text(json.dumps(metadata))
    page = open_in_browser(site, tmp_path)

    image = decode_image(path.read_bytes(), path.name)
    fitting = Fitting(scale=scale, multiple=32, alignment=alignment)
    (inputs,) = fitting.images(image)
    (size,) = fitting.sizes(image.shape[:2])
    rows, columns = size.inner
    padded = np.empty_like(inputs)
    padded[:] = np.round(metadata["input"]["normalisation"]["mean"])
    padded[:rows, :columns] = inputs[:rows, :columns]
    session = onnx_graph.Session((site / "model.onnx").read_bytes())
    (wanted,) = session(padded[None])
    wanted = wanted[:rows, :columns]
    assert len(np.unique(wanted)) > 2
    height, width = size.outer
    assert f"Seen at {width} × {height} in" in page and "by WebAssembly" in page
    encoded = re.search(r'"segnext-ids"[^>]*base64,([^"]+)"', page)
    decoded = Image.open(io.BytesIO(base64.b64decode(encoded[1])))
    labels = np.asarray(decoded.convert("RGB"))[..., 0]
    assert labels.shape == image.shape[:2]
    # The page shows the nearest label for each pixel of the photograph.
    nearest = [
        np.floor((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(labels.shape, wanted.shape, strict=True)
    ]
    # WebAssembly may round in another order.
    assert np.mean(labels != wanted[np.ix_(*nearest)]) < 1e-4
    (first, share) = re.search(r"</span>(.*?) <b>([\d.]+)%</b>", page).groups()
    counts = np.bincount(wanted.ravel(), minlength=len(metadata["classes"]))
    assert first == metadata["classes"][counts.argmax()]
    assert float(share) == pytest.approx(100 * counts.max() / wanted.size, abs=0.06)


def test_missing_npm_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="not installed: install Node.js, or put"):
        web_page.fetch_runtime()
    archive = tmp_path / "segnext_jax" / web_page.ARCHIVE
    archive.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="checksum is another. Delete it"):
        web_page.fetch_runtime()


def test_page_takes_pictures_and_gives_labels(capsys):
    options = ["--checkpoint=nothing", "--to=nowhere", "--format=web"]
    assert command.run(main, [*options, "--output=logits"]) == 1
    error = capsys.readouterr().err
    assert "--format=web needs --input=uint8, --result=labels" in error
