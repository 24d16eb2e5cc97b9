"""The command `push`: an exported folder to the Hugging Face Hub, by huggingface_hub's own client."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2

from pipeline import __version__, machine
from pipeline.artifact import Artifact
from pipeline.download import unusable_settings
from pipeline.errors import InputError, UsageError
from pipeline.export import restoring
from pipeline.export.hub import (
    HfApi,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    constants,
    get_session,
    get_token,
)
from pipeline.export.huggingface import CONFIG, MODEL, README, config
from pipeline.progress import Reporter

COMMAND = "push"
_TOKEN = "Set HF_TOKEN to one that may write (https://huggingface.co/settings/tokens), or log in: hf auth login"
_MENDS = {
    402: "Make room for it in the owner's account, or push to another --repo.",
    404: "Correct --repo OWNER/NAME.",
    413: "Export a smaller model: python -m pipeline pack MODEL --storage bf16 --output FOLDER",
}
"""By status of the answer."""


def push(folder: Path, repo: str, reporter: Reporter, *, private: bool = False) -> str:
    """Upload `folder` to the model repository `repo`, which is made if it is not there; the address of the commit.

    `private` holds for a repository that is made. Raises UsageError for a missing token, offline mode, an impossible
    name and settings of the shell that no client can use; InputError for a folder that is no export or was changed
    since, and for whatever the Hub refuses.
    """
    missing = [name for name in (MODEL, CONFIG, README) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} has no {missing[0]}.",
            f"Make the folder first: python -m pipeline export --to huggingface --run RUN --output {folder}",
        )
    if constants.is_offline_mode():
        raise UsageError("HF_HUB_OFFLINE forbids the network.", "Unset it, on a machine that has one.")
    token = get_token()
    if token is None:
        raise UsageError("There is no token for the Hugging Face Hub.", _TOKEN)
    if not re.fullmatch("[!-~]+", token):  # the client's own complaint shows the token
        raise UsageError("The token for the Hugging Face Hub has a character that no token has.", _TOKEN)
    _check_unchanged(folder)
    try:
        get_session()  # builds the client that all requests go through
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
        raise unusable_settings(error) from error
    api = HfApi()
    try:
        made = api.create_repo(repo, private=private or None, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder, repo_id=made.repo_id, commit_message="Upload by staged-ulmfit", ignore_patterns=[".*"]
        )
    except HFValidationError as error:
        raise UsageError(f"{repo!r} cannot name a repository: {error}", "Give --repo OWNER/NAME.") from error
    except OfflineModeIsEnabled as error:
        raise UsageError("HF_HUB_OFFLINE forbids the network.", "Unset it, on a machine that has one.") from error
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _refusal(error, folder, repo) from error
    reporter.line(f"{COMMAND}: {folder} uploaded to {commit.commit_url}")
    return commit.commit_url


def _check_unchanged(folder: Path) -> None:
    """InputError if `folder` is not what was exported; its README.md is the user's to write on."""
    try:
        with machine.limits_told(COMMAND):
            manifest = restoring.check(folder)
        expected = config(Artifact(folder, manifest))
        if not _says(folder / CONFIG, expected):
            raise InputError(f"{folder / CONFIG} is not what was exported.")
    except InputError as error:
        again = "python -m pipeline export --to huggingface --run RUN --output ANOTHER_FOLDER"
        raise InputError(error.what, f"Export it again: {again}") from error


def _says(path: Path, expected: dict[str, Any]) -> bool:
    """True if a configuration is the expected one, whichever version wrote it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and found | {"library_version": __version__} == expected


def _refusal(error: Exception, folder: Path, repo: str) -> InputError:
    """What an upload broke off with, and what to do about it."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # of one file: says which, not why
        return _refusal(error.__cause__, folder, repo)
    if isinstance(error, HfHubHTTPError):
        said = _first_lines(error.server_message or str(error))
        return InputError(f"{constants.ENDPOINT} refused {repo}: {said}", _mend(error.response.status_code))
    if isinstance(error, json.JSONDecodeError):
        return InputError(
            f"{constants.ENDPOINT} did not answer as the Hub does.", "Log in to this network, or correct HF_ENDPOINT."
        )
    said = _first_lines(str(error) or type(error).__name__)
    if isinstance(error, httpx2.HTTPError | OSError):
        wrong = isinstance(error, httpx2.UnsupportedProtocol)
        mend = "Correct HF_ENDPOINT." if wrong else "Push from a machine with network."
        return InputError(f"{constants.ENDPOINT} cannot be reached: {said}", mend)
    # Metadata that the Hub does not know, for one.
    return InputError(f"{folder} could not be uploaded: {said}", "Correct its README.md, or try again.")


def _first_lines(text: str) -> str:
    """As much of a message as is read: what it is about, and the first thing that is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = " ".join(lines[:2])
    return said if said.endswith(".") else f"{said}."


def _mend(status: int) -> str:
    if status in (401, 403):
        return "Use a token that may write to this owner's repositories: HF_TOKEN, or hf auth login."
    if status in (409, 429) or status >= 500:
        return "Try again later."
    return _MENDS.get(status, "Correct what it names.")
