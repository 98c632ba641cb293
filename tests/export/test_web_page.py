"""The page of `--format=web` in a browser gives onnxruntime's labels."""

import base64
import functools
import http.server
import io
import json
import os
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

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None, reason="needs npm, which fetches onnxruntime-web"
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"
)


# Waits for the page within it, and tells the server what that shows.
WATCHER = """<iframe id="page" src="/?image=photograph.png"></iframe><script>
const frame = document.getElementById("page");
const timer = setInterval(() => {
  const page = frame.contentDocument;
  const text = page.getElementById("status")?.textContent ?? "";
  if (!/Seen|could not/.test(text)) return;
  clearInterval(timer);
  const view = frame.contentWindow;
  view.URL.createObjectURL = (blob) => {
    const reader = new FileReader();
    reader.onload = () => {
      const legend = page.querySelector("#legend button").textContent;
      const labels = reader.result.split(",")[1];
      const body = JSON.stringify({ text, legend, labels });
      fetch("/seen", { method: "POST", body });
    };
    reader.readAsDataURL(blob);
    return "#";
  };
  page.getElementById("labels").click();
}, 200);
</script>"""


class StaticFiles(http.server.SimpleHTTPRequestHandler):
    """As from any host of them; with what the watcher tells."""

    def do_POST(self):
        """Take the page."""
        length = int(self.headers["Content-Length"])
        self.server.pages.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def open_in_browser(site, profile):
    """Return what the page says, and its download of labels."""
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
    page = {"index.html", "web_page.js", "result_page.js"}
    runtime = {f"onnxruntime/{name}" for name in web_page.RUNTIME}
    files = {"metadata.json", "model.onnx", "result_page.css"}
    assert names == page | runtime | files
    metadata = json.loads((site / "metadata.json").read_text())
    assert metadata["input"]["shape"] == [1, "height", "width", 3]
    text = "".join((site / name).read_text() for name in page)
    # Nothing is loaded from, or sent to, another place.
    assert not re.search(r"https?://", text)


@needs_npm
@needs_chromium
def test_browser_gives_onnxruntimes_labels(site, tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (5, 8, 3), np.uint8))
    image = noise.resize((192, 128), Image.Resampling.BICUBIC)
    image.save(site / "photograph.png")
    page = open_in_browser(site, tmp_path)
    assert "Seen at 192 × 128 in" in page["text"] and "by WebAssembly" in page["text"]
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(page["labels"]))))
    session = onnx_graph.Session((site / "model.onnx").read_bytes())
    (wanted,) = session(np.asarray(image)[None])
    assert len(np.unique(wanted)) > 2
    # WebAssembly rounds in another order.
    assert np.mean(labels != wanted) < 1e-3
    (first, share) = re.fullmatch(r"(.*) ([\d.]+)%", page["legend"]).groups()
    metadata = json.loads((site / "metadata.json").read_text())
    counts = np.bincount(labels.ravel(), minlength=len(metadata["classes"]))
    assert first == metadata["classes"][counts.argmax()]
    assert float(share) == pytest.approx(100 * counts.max() / labels.size, abs=0.06)


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
