"""The server of the page: answers, refusals, limits."""

import base64
import http.client
import json
import urllib.request
import zlib

import cv2
import numpy as np
import pytest

from segnext_jax.cli import command
from segnext_jax.demo import page
from segnext_jax.demo.__main__ import main


def photograph(height=50, width=70):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 6, 3), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return image, cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def ask(server, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(*server.server_address, timeout=120)
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    return response.status, response.read().decode()


def values(answer, text):
    array = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return array.reshape(answer["height"], answer["width"])


def test_answer_is_the_prediction_with_its_probability(serve, network):
    image, encoded = photograph()
    status, text = ask(serve(), "POST", "/look?name=a.png", encoded)
    assert status == 200
    answer = json.loads(text)
    result = network.predict(image)
    labels = values(answer, answer["labels"])
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, result.labels)
    certainty = values(answer["certainty"], answer["certainty"]["values"]) / 255
    best = result.probabilities.max(axis=-1)
    np.testing.assert_allclose(certainty, best, atol=0.5 / 255 + 1e-5)
    shown = cv2.imdecode(
        np.frombuffer(base64.b64decode(answer["photograph"]), np.uint8),
        cv2.IMREAD_COLOR_RGB,
    )
    assert np.abs(shown.astype(int) - image).mean() < 3


def test_large_photographs_are_reduced_to_what_a_screen_shows(serve, monkeypatch):
    monkeypatch.setattr(page, "MAX_SIDE_PX", 35)
    monkeypatch.setattr(page, "MAX_CERTAINTY_SIDE_PX", 14)
    _, encoded = photograph()
    _, text = ask(serve(), "POST", "/look?name=a.png", encoded)
    answer = json.loads(text)
    assert values(answer, answer["labels"]).shape == (25, 35)
    certainty = answer["certainty"]
    assert values(certainty, certainty["values"]).shape == (10, 14)


def test_metadata_names_network_step_score_classes_and_examples(serve):
    server = serve(examples={"a street": photograph()[1]})
    metadata = json.loads(ask(server, "GET", "/metadata.json")[1])
    network = metadata["network"]
    assert (network["variant"], network["step"], network["mIoU"]) == (
        *("tiny", 1500),
        0.4321,
    )
    assert metadata["dataset"] == "camvid" and metadata["classes"][3] == "road"
    (address,) = metadata["examples"]
    url = f"{server.address}{address}"
    with urllib.request.urlopen(url) as response:
        assert response.headers["Content-Type"] == "image/png"
        assert response.read() == photograph()[1]


def test_damaged_and_large_uploads_are_refused_in_a_sentence(serve):
    server = serve(max_upload_mb=1)
    cut = photograph()[1][:3000]
    status, text = ask(server, "POST", "/look?name=%2Fetc%2Fb.png", cut)
    assert status == 422
    assert text.startswith("b.png: cannot be decoded as an image: it is truncated")
    status, text = ask(server, "POST", "/look", b"", {"Content-Length": "1500000"})
    assert status == 413 and "at most 1 MB (--max_upload_mb): got 1.5 MB" in text
    assert ask(server, "POST", "/other", b"")[0] == 400


def test_nothing_but_the_page_is_served_and_only_under_its_own_name(serve):
    server = serve()
    for name, content in page.read_files().items():
        assert ask(server, "GET", f"/{name}") == (200, content.decode())
    assert ask(server, "GET", "/../setup.cfg")[0] == 404
    foreign = {"Host": "segnext.example:7860"}
    assert ask(server, "GET", "/metadata.json", None, foreign)[0] == 403
    assert ask(server, "POST", "/look", photograph()[1], foreign)[0] == 403


def test_port_in_use_is_one_sentence(serve):
    port = serve().server_address[1]
    with pytest.raises(ValueError, match=rf"--port={port} must be free on 127.0.0.1"):
        serve(port=port)
    # Without a choice the next one is taken.
    assert serve().server_address[1] > port


def test_limit_of_uploads_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        command.run(main, ["--checkpoint=nothing", "--max_upload_mb=0"])
    assert "--max_upload_mb must be at least 1: got 0" in capsys.readouterr().err
