"""The OpenAPI document says what the server does: schemathesis makes requests from it and holds every answer to it."""

import os
import subprocess
import sys
from pathlib import Path

from served import Served, running

from pipeline.serving.models import Models

# A body that is too large is refused before it is read, whether or not it would have been as described.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 413]
negative_data_rejection.expected-statuses = [400, 401, 404, 405, 413, 415, 422]
"""
KEY = "correct-horse-battery"


def schemathesis(folder: Path, url: str, *arguments: str) -> str:
    """What `schemathesis run` says about a server; it has to be content."""
    (folder / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [program, "run", f"{url}/openapi.json", "--seed", "1", "--no-color", *arguments], cwd=folder, text=True,
        capture_output=True, check=False, timeout=240, env={**os.environ, "NO_PROXY": "*"},
    )
    shown = "\n".join(line[:400] for line in done.stdout.splitlines())
    assert done.returncode == 0, shown
    return shown


def test_every_answer_is_as_documented(server: Served, tmp_path: Path) -> None:
    said = schemathesis(tmp_path, server.url, "--max-examples", "25", "--phases", "coverage,fuzzing")
    assert "Tested: 6" in said


def test_the_key_is_documented(models: Models, tmp_path: Path) -> None:
    with running(models, key=KEY) as server:
        said = schemathesis(
            tmp_path, server.url, "--max-examples", "2", "--phases", "fuzzing", "-H", f"Authorization: Bearer {KEY}",
            "--checks", "ignored_auth,not_a_server_error,status_code_conformance",
        )
    assert "Tested: 6" in said


def test_all_endpoints_are_documented(server: Served) -> None:
    document = server.get("/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/explain", "/generate", "/health", "/models", "/metrics"}
    assert document["openapi"] == "3.1.0"
    explain = document["components"]["schemas"]["ExplainBody"]["properties"]
    assert explain["model"]["anyOf"][0]["enum"] == ["one", "two"]
    assert explain["label"]["anyOf"][0]["enum"] == ["negative", "positive"]
    for path in ("/predict", "/explain", "/generate"):
        assert set(document["paths"][path]["post"]["responses"]) >= {"200", "400", "413", "415", "422", "503"}
