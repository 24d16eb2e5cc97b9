"""The command `push`: an exported folder to the Hugging Face Hub, by huggingface_hub's own client."""

import json
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from pipeline import __version__, machine
from pipeline.artifact import Artifact
from pipeline.errors import InputError, UsageError
from pipeline.export import restoring
from pipeline.export.huggingface import CONFIG, MODEL, README, config
from pipeline.progress import Reporter

COMMAND = "push"


def push(folder: Path, repo: str, reporter: Reporter, *, private: bool = False) -> str:
    """Upload `folder` to the model repository `repo`, which is made if it is not there; the address of the commit.

    `private` holds for a repository that is made. Raises UsageError for a missing token, offline mode or an impossible
    name, InputError for a folder that is no export or was changed since, and for whatever the Hub refuses.
    """
    missing = [name for name in (MODEL, CONFIG, README) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} has no {missing[0]}.",
            f"Make the folder first: python -m pipeline export --to huggingface --run RUN --output {folder}",
        )
    if constants.is_offline_mode():
        raise UsageError("HF_HUB_OFFLINE forbids the network.", "Unset it, on a machine that has one.")
    if get_token() is None:
        raise UsageError(
            "There is no token for the Hugging Face Hub.",
            "Set HF_TOKEN to one that may write (https://huggingface.co/settings/tokens), or log in: hf auth login",
        )
    _check_unchanged(folder)
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
    except HfHubHTTPError as error:
        raise InputError(f"{constants.ENDPOINT} refused {repo}: {_first_line(error)}", _mend(error)) from error
    except (httpx2.HTTPError, OSError) as error:
        raise InputError(
            f"{constants.ENDPOINT} cannot be reached: {_first_line(error)}.", "Push from a machine with network."
        ) from error
    except (ValueError, RuntimeError) as error:  # metadata that the Hub does not know; an upload that broke off
        raise InputError(
            f"{folder} could not be uploaded: {_first_line(error)}", "Correct its README.md, or try again."
        ) from error
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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _mend(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return "Use a token that may write to this owner's repositories: HF_TOKEN, or hf auth login."
    return "Try again later." if status >= 500 else "Correct --repo OWNER/NAME."
