"""Downloads from a server of this machine that moves, breaks off and lies."""

import hashlib
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from segnext_jax.cli.download import download

CONTENT = np.random.default_rng(0).bytes(3_000_001)
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def server(file_server):
    file_server.files["a.pth"] = CONTENT
    return file_server


def test_a_file_is_fetched_through_a_redirection_and_once(server, tmp_path):
    path = tmp_path / "kept" / "a.pth"
    download(f"{server.url}/moved/a.pth", path, CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.pth"]
    assert server.requests == [("/moved/a.pth", ""), ("/a.pth", "")]
    download(f"{server.url}/a.pth", path, CHECKSUM)
    assert len(server.requests) == 2


def test_a_connection_that_breaks_off_is_gone_on_with(server, tmp_path, caplog):
    server.cuts = [1_000_000, 500_000]
    with caplog.at_level("INFO"):
        download(f"{server.url}/a.pth", tmp_path / "a.pth", CHECKSUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    ranges = [wanted for _, wanted in server.requests]
    assert ranges == ["", "bytes=1000000-", "bytes=1500000-"]
    (line,) = [r.message for r in caplog.records if "download a.pth" in r.message]
    assert "2930/2930  MB 3.0" in line


def test_a_later_run_goes_on_where_this_one_was_interrupted(server, tmp_path):
    server.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(ValueError, match="broke off. The same command goes on"):
        download(f"{server.url}/a.pth", tmp_path / "a.pth", CHECKSUM)
    assert not (tmp_path / "a.pth").exists()
    server.requests.clear()
    download(f"{server.url}/a.pth", tmp_path / "a.pth", CHECKSUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.requests == [("/a.pth", "bytes=1000000-")]


def test_a_tag_that_does_not_promise_the_same_bytes_is_not_gone_on_with(
    server, tmp_path
):
    server.is_weak, server.cuts = True, [1_000_000]
    download(f"{server.url}/a.pth", tmp_path / "a.pth", CHECKSUM)
    assert server.requests == [("/a.pth", "")] * 2


@pytest.mark.parametrize("change", ["file", "ranges", "notes"])
def test_what_cannot_be_gone_on_with_begins_anew(change, server, tmp_path):
    server.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(ValueError, match="broke off"):
        download(f"{server.url}/a.pth", tmp_path / "a.pth")
    content = CONTENT
    if change == "file":
        content = server.files["a.pth"] = CONTENT[::-1]
    elif change == "ranges":
        server.has_ranges = False
    else:
        (tmp_path / "a.pth.part.json").write_text("{")
    download(f"{server.url}/a.pth", tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == content


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_whole_or_too_long(size, server, tmp_path):
    notes = {"url": f"{server.url}/a.pth", "validator": f'"{hash(CONTENT)}"'}
    notes["size"] = len(CONTENT)
    (tmp_path / "a.pth.part").write_bytes(CONTENT.ljust(size, b"x"))
    (tmp_path / "a.pth.part.json").write_text(json.dumps(notes))
    download(f"{server.url}/a.pth", tmp_path / "a.pth", CHECKSUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert len(server.requests) == 1 + (size > len(CONTENT))


def test_the_digits_of_a_checksum_are_its_first(server, tmp_path):
    inner = "sha256:" + hashlib.sha256(CONTENT).hexdigest()[8:16]
    with pytest.raises(ValueError, match="its sha256 checksum must begin with"):
        download(f"{server.url}/a.pth", tmp_path / "a.pth", inner)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/a.pth", "is not the file that it was: its sha256 checksum must begin with "),
        ("/b.pth", "could not be fetched: the server answers 404, Not Found."),
        ("/page/a.pth", "answers 200, a web page came, not the file."),
    ],
)
def test_another_answer_is_one_sentence_and_leaves_nothing(
    path, message, server, tmp_path
):
    with pytest.raises(ValueError) as caught:
        download(server.url + path, tmp_path / "a.pth", "sha256:0000")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_network_is_said_at_once(tmp_path):
    with pytest.raises(ValueError, match="could not be fetched: Connection refused.$"):
        download("http://127.0.0.1:9/a.pth", tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_larger_than_the_disk_is_not_begun(server, tmp_path):
    server.claimed_size = 10**18
    with pytest.raises(ValueError, match="it takes 1,000,000,000,000 MB more, and"):
        download(f"{server.url}/a.pth", tmp_path / "a.pth")
    assert not (tmp_path / "a.pth.part").exists()


def test_a_disk_that_takes_no_more_is_one_sentence(server, tmp_path):
    program = (
        "import pathlib, resource, signal, sys\n"
        "from segnext_jax.cli import command\n"
        "from segnext_jax.cli.download import download\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "main = lambda given: download(given[0], pathlib.Path(given[1]))\n"
        "sys.exit(command.run(main, sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{server.url}/a.pth", tmp_path / "a.pth"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: there must be room")
    assert f"Make room in {tmp_path}; the same command" in done.stderr
    assert done.stderr.count("\n") == 1
    download(f"{server.url}/a.pth", tmp_path / "a.pth", CHECKSUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.requests[-1] == ("/a.pth", "bytes=1048576-")


def test_several_at_once_fetch_it_once(server, tmp_path):
    threads = [
        threading.Thread(
            target=download, args=(f"{server.url}/a.pth", tmp_path / "a.pth")
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]
