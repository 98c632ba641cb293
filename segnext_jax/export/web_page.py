"""A page that runs the ONNX file in a browser: no server but one for static files."""

import base64
import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from segnext_jax.demo import page

# Version of the npm package, and its checksum as
# `npm view onnxruntime-web@VERSION dist.integrity` prints it.
VERSION = "1.30.0"
SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfK"
    "YQ=="
)
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
# With and without WebGPU: the page loads one of the two.
RUNTIME = (
    *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs"),
    *("ort-wasm-simd-threaded.asyncify.wasm", "ort.wasm.min.mjs"),
    *("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
)


def fetch_runtime() -> pathlib.Path:
    """Return the archive of onnxruntime-web; npm fetches it once.

    Raises:
      ValueError: If npm is missing or fails, or the file has another checksum.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    archive = pathlib.Path(caches) / "segnext_jax" / ARCHIVE
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            _download(folder, archive)
            (pathlib.Path(folder) / ARCHIVE).rename(archive)
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if base64.b64encode(digest).decode() != SHA512:
        raise ValueError(
            f"{archive} must be onnxruntime-web {VERSION} as npm publishes it: its "
            "checksum is another. Delete it and try again."
        )
    return archive


def write(folder: pathlib.Path, archive: pathlib.Path) -> None:
    """Write all that the page needs beside metadata.json and the ONNX file.

    Args:
      folder: Where to.
      archive: The archive that `fetch_runtime` returned.
    """
    script = pathlib.Path(__file__).with_suffix(".js")
    shutil.copy(script, folder / script.name)
    for name, content in page.read_files().items():
        (folder / name).write_bytes(content)
    runtime = folder / "onnxruntime"
    runtime.mkdir()
    with tarfile.open(archive) as package:
        for name in RUNTIME:
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None
            (runtime / name).write_bytes(member.read())


def _download(folder: str, archive: pathlib.Path) -> None:
    package = f"onnxruntime-web@{VERSION}"
    npm = shutil.which("npm")
    what = f"--format=web copies {package} from npm"
    help_ = f"install Node.js, or put its archive, {ARCHIVE}, in {archive.parent}."
    if npm is None:
        raise ValueError(f"{what}, which is not installed: {help_}")
    command = [npm, "pack", package, "--silent", "--pack-destination", folder]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = result.stderr.strip().splitlines() or ["no reason given"]
        raise ValueError(f"{what}, which fails ({reason[-1]}): {help_}")
