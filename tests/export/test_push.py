"""An exported folder on its way to a Hub on this machine: it arrives whole, or a sentence says what to do."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT
from hub_server import Hub
from huggingface_hub import close_session, constants
from safetensors.numpy import load_file, save_file
from tiny_classifiers import seal_classifier

from pipeline.artifact import open_artifact
from pipeline.errors import InputError, UsageError
from pipeline.export import pushing
from pipeline.export.card import CardRequest
from pipeline.export.huggingface import export_huggingface
from pipeline.progress import Reporter

NOWHERE = "http://127.0.0.1:9"


def export(folder: Path, seed: int) -> Path:
    """A classifier as it is pushed."""
    model = open_artifact(seal_classifier(folder / "model/classifier-fwd", seed=seed), "classifier")
    export_huggingface(model, None, folder / "film", CardRequest("film"), Reporter(io.StringIO()), home=folder)
    return folder / "film"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is left as it is."""
    return export(tmp_path_factory.mktemp("hub"), seed=3)


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub that this process pushes to."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    close_session()
    with Hub("secret") as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        yield running
        close_session()


def push(folder: Path, tmp_path: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library reads its environment while it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    mine = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "pipeline", "push", "--folder", str(folder), "--repo", "me/film", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=kept | mine, timeout=120)


def test_a_pushed_folder_arrives_whole(exported: Path, tmp_path: Path) -> None:
    with Hub("secret") as hub:
        done = push(exported, tmp_path, "--private", HF_ENDPOINT=hub.url, HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/me/film/commit/1\n"
    assert [(one["organization"], one["name"], one["visibility"]) for one in hub.made] == [("me", "film", "private")]
    assert hub.files == {
        path.relative_to(exported).as_posix(): path.read_bytes() for path in exported.rglob("*") if path.is_file()
    }
    assert "secret" not in done.stdout + done.stderr


def test_what_the_hub_refuses_is_a_sentence(exported: Path, tmp_path: Path) -> None:
    with Hub("secret") as hub:
        wrong = push(exported, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="wrong")
        hub.refuse["/api/repos/create"] = 403
        forbidden = push(exported, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="secret")
    gone = push(exported, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="secret")
    for done, message in (
        (wrong, "Use a token that may write to this owner's repositories"),
        (forbidden, "Use a token that may write to this owner's repositories"),
        (gone, "cannot be reached"),
    ):
        assert done.returncode == 3, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert hub.files == {}


def test_what_push_needs(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for done, code, message in (
        (push(exported, tmp_path, HF_ENDPOINT=NOWHERE), 2, "There is no token for the Hugging Face Hub. Set HF_TOKEN"),
        (push(exported, tmp_path, HF_ENDPOINT=NOWHERE, HF_TOKEN="t", HF_HUB_OFFLINE="1"), 2, "HF_HUB_OFFLINE forbids"),
        (push(tmp_path / "empty", tmp_path), 3, "has no model.safetensors. Make the folder first: python -m pipeline"),
        (push(exported, tmp_path, "--repo", "a/b/c", HF_ENDPOINT=NOWHERE, HF_TOKEN="t"), 2, "cannot name a repository"),
    ):
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_only_what_was_exported_is_pushed(hub: Hub, copy: Path, tmp_path: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    other = export(tmp_path / "other", seed=4)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))

    def changes() -> Iterator[str]:
        """Each kind of damage, and what is said of it."""
        whole = (copy / "model.safetensors").read_bytes()
        save_file({**tensors, "head.0.norm.bias": tensors["head.0.norm.bias"] + 1}, copy / "model.safetensors")
        yield f"head.safetensors in {copy / 'model.safetensors'} is not what was exported: SHA-256"
        (copy / "model.safetensors").write_bytes(whole[:-8])
        yield f"{copy / 'model.safetensors'} cannot be read"
        shutil.copyfile(other / "model.safetensors", copy / "model.safetensors")
        yield "is not what was exported: SHA-256"
        (copy / "model.safetensors").write_bytes(whole)
        labels = (copy / "labels.json").read_bytes()
        (copy / "labels.json").unlink()
        yield f"{copy / 'labels.json'} is missing."
        (copy / "labels.json").write_bytes(labels)
        for changed in (json.dumps(config), "[]", "{"):
            (copy / "config.json").write_text(changed, encoding="utf-8")
            yield f"{copy / 'config.json'} is not what was exported."
        (copy / "manifest.json").unlink()
        yield f"{copy} is not a sealed artifact: it has no manifest.json."

    for message in changes():
        with pytest.raises(InputError) as caught:
            pushing.push(copy, "me/film", Reporter(io.StringIO()))
        assert message in caught.value.what
        assert caught.value.mend.startswith("Export it again: python -m pipeline export --to huggingface --run RUN ")
    assert hub.made == []


QUOTA = json.dumps({"error": "You have exceeded your private storage"})
KEYS = json.dumps({"errors": [{"message": '"license" must be one of [apache-2.0, mit]'}], "warnings": []})
LATER = "Try again later."


@pytest.mark.parametrize(
    ("path", "answer", "told"),
    [
        ("/create", (400, '{"error": "It is reserved"}'), ("refused me/film: It is reserved.", "Correct what it n")),
        ("/create", (402, QUOTA), ("refused me/film: You have exceeded your private storage.", "Make room for it in ")),
        ("/create", (404, '{"error": "No such owner"}'), ("refused me/film: No such owner.", "Correct --repo OWNER/N")),
        ("/create", (413, '{"error": "Too large"}'), ("refused me/film: Too large.", "Export a smaller model: python")),
        ("/create", (429, '{"error": "Slow down"}'), ("refused me/film: Slow down.", LATER)),
        ("/create", (502, "<html>"), ("refused me/film: Server error '502 Bad Gateway' for url", LATER)),
        ("/commit/main", (409, '{"error": "It was changed"}'), ("refused me/film: It was changed.", LATER)),
        ("/create", (200, "<html>Log in</html>"), ("did not answer as the Hub does.", "Log in to this network, or")),
        ("/validate-yaml", (400, KEYS), ('"license" must be one of [apache-2.0, mit].', "Correct its README.md")),
        ("/blob/", (403, QUOTA), ("refused me/film: You have exceeded your private storage.", "Use a token that may")),
    ],
)
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub, for httpx2
def test_the_reason_of_the_hub_is_told(
    hub: Hub, exported: Path, path: str, answer: tuple[int, str], told: tuple[str, str]
) -> None:
    hub.instead[path] = answer
    with pytest.raises(InputError) as caught:
        pushing.push(exported, "me/film", Reporter(io.StringIO()))
    assert told[0] in caught.value.what
    assert caught.value.mend.startswith(told[1])


@pytest.mark.parametrize("token", ["sécret", "secret secret", "secret\x7f"])
def test_a_token_that_cannot_be_one_is_told_and_not_shown(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match=r"The token .* has a character that no token has\. Set HF_TOKEN") as caught:
        pushing.push(exported, "me/film", Reporter(io.StringIO()))
    assert token not in str(caught.value)
    assert hub.made == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"), ("all_proxy", "socks://127.0.0.1:9"),
        ("HTTPS_PROXY", "http://proxy:port"), ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_settings_of_the_shell_that_no_client_can_use(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=r"^The proxy or certificate settings of this shell cannot be used: "):
        pushing.push(exported, "me/film", Reporter(io.StringIO()))
    assert hub.made == []


def test_an_address_of_the_hub_that_is_none(exported: Path, tmp_path: Path) -> None:
    for address, code, mend in (("http://hub:port", 2, "Correct HF_ENDPOINT, or"), ("hub", 3, "Correct HF_ENDPOINT.")):
        done = push(exported, tmp_path, HF_ENDPOINT=address, HF_TOKEN="secret")
        assert done.returncode == code, done.stderr
        assert mend in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub, for httpx2
def test_a_card_that_was_written_on_is_pushed(hub: Hub, copy: Path) -> None:
    with (copy / "README.md").open("a", encoding="utf-8") as card:
        card.write("For film critics.\n")
    pushing.push(copy, "me/film", Reporter(io.StringIO()))
    assert hub.files["README.md"].endswith(b"For film critics.\n")
