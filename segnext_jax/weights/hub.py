"""Networks of the Hugging Face hub: ``hf://user/name`` or ``hf://user/name@revision``.

The hub's own library does the work, with its cache, its login and its variables
(``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``); what it refuses becomes one sentence.
"""

import pathlib
import re
from typing import Any, NamedTuple

from segnext_jax.checkpoints.model_folder import CONFIG_FILE
from segnext_jax.weights.shared_folder import CHECKSUMS_FILE, WEIGHTS_FILE

# One slash is enough, because a pathlib.Path drops the second.
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class Address(NamedTuple):
    """A repository of the hub.

    Attributes:
      repository: ``user/name``.
      revision: Branch, tag or commit; None: the main branch.
    """

    repository: str
    revision: str | None


def is_address(text: str) -> bool:
    """Tell whether a text is meant as an address of the hub."""
    return text.startswith("hf:/")


def parse(text: str) -> Address:
    """Return the repository that an address names.

    Raises:
      ValueError: If the text is no address of a repository.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            f"an address of the hub must be hf://user/name or hf://user/name@revision: "
            f"got {text}."
        )
    return Address(match[1], match[2])


def fetch(text: str) -> pathlib.Path:
    """Return the folder, in the hub's cache, of a network.

    Raises:
      ValueError: If the network cannot be fetched, or the library is not installed.
    """
    address, library = parse(text), _library()
    try:
        folder = library.snapshot_download(
            address.repository,
            revision=address.revision,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CHECKSUMS_FILE],
        )
    # The library raises its own errors, those of its HTTP client and of the system.
    except Exception as error:
        raise ValueError(
            f"{text} could not be fetched: {_reason(error)}. Without a "
            "network, fetch its files by hand and name their folder; a private one "
            "needs hf auth login."
        ) from error
    return pathlib.Path(folder)


def upload(folder: pathlib.Path, text: str) -> None:
    """Make a folder the content of a repository of the hub, which is made if need be.

    Raises:
      ValueError: If the folder cannot be uploaded, or the library is not installed.
    """
    address, library = parse(text), _library()
    try:
        hub = library.HfApi()
        hub.create_repo(address.repository, exist_ok=True)
        if address.revision is not None:
            hub.create_branch(
                address.repository, branch=address.revision, exist_ok=True
            )
        hub.upload_folder(
            repo_id=address.repository, revision=address.revision, folder_path=folder
        )
    except Exception as error:
        raise ValueError(
            f"{text} could not be published: {_reason(error)}. Log in "
            "with hf auth login, or publish to a folder."
        ) from error


def _reason(error: Exception) -> str:
    """Return what the library says; the first of its lines is a mere number."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2] or [type(error).__name__]).rstrip(".")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            "networks of the Hugging Face hub need huggingface_hub, which is not "
            "installed: pip install 'segnext_jax[hub]'."
        ) from error
    return huggingface_hub
