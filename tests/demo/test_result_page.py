"""The page in a real browser: what a person sees and does at a desk and on a phone."""

import base64
import io
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.demo.test_server import photograph

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VISITOR = pathlib.Path(__file__).with_name("visitor.js")


@pytest.fixture
def told(serve, tmp_path):
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    server = serve(examples={"street.png": photograph()[1]}, max_upload_mb=1)
    server.files["visitor.html"] = b'<script type="module" src="visitor.js"></script>'
    server.files["visitor.js"] = VISITOR.read_bytes()
    reports = queue.Queue()

    class Handler(server.RequestHandlerClass):
        def do_POST(self):
            if self.path != "/told":
                return super().do_POST()
            length = int(self.headers["Content-Length"])
            reports.put(json.loads(self.rfile.read(length)))

    server.RequestHandlerClass = Handler
    options = ["--headless", "--no-sandbox", "--disable-gpu"]
    options += [f"--user-data-dir={tmp_path}", "--remote-debugging-port=0"]
    # A session of its own: what it starts ends with it.
    browser = subprocess.Popen(
        [CHROMIUM, *options, f"{server.address}visitor.html"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        told = reports.get(timeout=120)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    assert "fault" not in told, told["fault"]
    return told


def test_page_is_used_at_a_desk_and_on_a_phone(told, network):
    labels = network.predict(photograph()[0]).labels
    probability = network.predict(photograph()[0]).probabilities
    counts = np.bincount(labels.ravel(), minlength=11)
    order = np.argsort(-counts, kind="stable")
    legend = [f"{network.classes[i]} " for i in order if counts[i]]
    row, column = 25, 17
    best = labels[row, column]
    share = round(100 * probability[row, column, best])
    for seen in told.values():
        assert seen["title"] == (
            "SegNeXt tiny, camvid, mIoU 43.21, step 1,500, 11 classes"
        )
        texts = [re.fullmatch(r"(.* )(\S+)%", text).groups() for text in seen["legend"]]
        assert [name for name, _ in texts] == legend
        assert float(texts[0][1]) == pytest.approx(
            100 * counts.max() / labels.size, abs=0.05
        )
        assert min(seen["buttons"]) >= 44  # A finger is not thinner.
        assert seen["overflow"] <= 0
        name, percent = re.fullmatch(r"(.*) (\d+)%", seen["name"]).groups()
        assert name == network.classes[best] and abs(int(percent) - share) <= 1
        assert seen["tapped"] == seen["name"] and seen["left"] == 0
        assert seen["opacity"] == "0.2"
        is_largest = (labels == order[0]).ravel()
        assert (np.array(seen["chosen"]["tint"]) == 255 * is_largest).all()
        assert ((np.array(seen["chosen"]["veil"]) == 0) == is_largest).all()
        assert seen["released"] == 0
        check_downloads(seen["saved"], labels, network)
        assert seen["fault"].startswith("<b>.png: cannot be decoded as an image")
        assert seen["markup"] == 0 and seen["isOldGone"]
        assert "at most 1 MB (--max_upload_mb): got 1.2 MB" in seen["limit"]
    assert told["desk"]["beside"] and told["phone"]["below"]


def check_downloads(saved, labels, network):
    assert set(saved) == {"street_labels.png", "street_overlay.jpg"}
    files = {name: io.BytesIO(base64.b64decode(text)) for name, text in saved.items()}
    image = Image.open(files["street_labels.png"])
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    assert tuple(image.getpalette()[9:12]) == network.spec.colours[3]
    overlay = np.asarray(Image.open(files["street_overlay.jpg"])).astype(int)
    colours = np.array(network.spec.colours)[labels]
    wanted = 0.8 * photograph()[0] + 0.2 * colours
    assert np.abs(overlay - wanted).mean() < 6
