"""Document vectors: what a classifier's head sees, its parts, formats out, resumption, and what is refused."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_classifiers import WORDS, seal_classifier
from tiny_language_models import fastai_model, seal_language_model
from typer.testing import CliRunner

from pipeline import stopping
from pipeline.cli import app
from pipeline.errors import InputError, Stopped, UsageError
from pipeline.inference import inputs
from pipeline.inference.bulk import Request
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.inference.embed import Embedder, embed, load_embedder
from pipeline.inference.vectors import Origin, Pooling, read_blocks, read_origin
from pipeline.progress import Reporter
from pipeline.settings import RunSettings

FP32 = RunSettings(precision="fp32", device="cpu")
TEXTS = ["A warm, witty film!", "the dull dull dull story", "", "A FINE cast " * 30]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_classifier(tmp_path_factory.mktemp("model") / "classifier")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_language_model(tmp_path_factory.mktemp("model") / "lm")


@pytest.fixture(autouse=True)
def no_stop() -> Iterator[None]:
    yield
    stopping.forget()


def run(model: Path, pooling: Pooling = "concat", lines: bytes = b"", **asked: Any) -> tuple[bytes, str]:
    """Standard output and the log of one command."""
    stdout, log = io.BytesIO(), io.StringIO()
    request = Request(str(model), **{"precision": "fp32", "device": "cpu", **asked})
    embed(request, pooling, Reporter(log), io.BytesIO(lines), stdout)
    return stdout.getvalue(), log.getvalue()


def reviews(n: int) -> list[str]:
    """Texts of 1 to 40 words in no order of length."""
    rng = np.random.default_rng(n)
    return [" ".join(rng.choice(WORDS[1:], rng.integers(1, 40))) for _ in range(n)]


def vectors_of(embedder: Embedder, texts: list[str], pooling: Pooling = "concat") -> Any:
    return embedder.vectors(embedder.text.encode(texts), pooling)


def test_a_classifiers_vectors_are_what_its_head_sees(classifier: Path) -> None:
    bundle, embedder = load_classifier_bundle(classifier, FP32), load_embedder(classifier, FP32)
    texts = [*TEXTS, "film " * 200]  # longer than max_len: not all is pooled
    logits = bundle.classifier.model.head(torch.from_numpy(vectors_of(embedder, texts)))
    assert torch.softmax(logits.double(), dim=1).numpy() == pytest.approx(bundle.predict(texts), abs=1e-6)


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_a_language_models_vectors_are_pooled_outputs_of_fastais_encoder(tmp_path: Path, direction: str) -> None:
    folder = seal_language_model(tmp_path / "lm", direction=direction)
    embedder, model = load_embedder(folder, FP32), fastai_model(folder)
    found = vectors_of(embedder, TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        (ids,) = embedder.text.encode([text])
        model.reset()
        with torch.inference_mode():
            outputs = model[0](torch.from_numpy(ids[:: -1 if direction == "bwd" else 1].copy())[None])[0].numpy()
        expected = np.concatenate([outputs[-1], outputs.max(axis=0), outputs.mean(axis=0)])
        assert vector == pytest.approx(expected, abs=1e-6)


def test_poolings_are_parts_of_the_concatenation(language_model: Path) -> None:
    embedder = load_embedder(language_model, FP32)
    parts = [vectors_of(embedder, TEXTS, pooling) for pooling in ("last", "max", "mean")]
    assert {part.shape for part in parts} == {(4, 8)}
    assert (np.concatenate(parts, axis=1) == vectors_of(embedder, TEXTS)).all()
    assert vectors_of(embedder, []).shape == (0, 24)


def test_formats_out_say_the_same(language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 4)
    texts, ids = reviews(11), [f"né-{number * 5 % 11}" for number in range(11)]
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": ids, "text": texts}), source)
    for suffix in (".jsonl", ".npy", ".parquet"):
        _, log = run(language_model, input=source, output=tmp_path / f"out{suffix}")
    assert "embed: 11 texts in" in log
    expected = vectors_of(load_embedder(language_model, FP32), texts)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert run(language_model, input=source)[0] == (tmp_path / "out.jsonl").read_bytes()
    matrix, table = np.load(tmp_path / "out.npy"), pq.read_table(tmp_path / "out.parquet")
    assert [line["id"] for line in lines] == table["id"].to_pylist() == ids
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 24)
    assert matrix.dtype == np.float32
    assert matrix == pytest.approx(expected, abs=1e-6)
    assert (np.stack(table["vector"].to_numpy()) == matrix).all()
    assert np.array([line["vector"] for line in lines]) == pytest.approx(matrix, abs=1e-6)
    blocks = list(read_blocks(tmp_path / "out.parquet"))
    assert [len(block.ids) for block in blocks] == [4, 4, 3]
    assert (np.concatenate([block.vectors for block in blocks]) == matrix).all()
    fingerprint = load_embedder(language_model).fingerprint
    assert read_origin(tmp_path / "out.parquet") == Origin(str(language_model), fingerprint, "concat", 24)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_empty_input_gives_an_empty_output(language_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"")
    for suffix in (".jsonl", ".npy", ".parquet"):
        run(language_model, input=tmp_path / "in.txt", output=tmp_path / f"out{suffix}")
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert np.load(tmp_path / "out.npy").shape == (0, 24)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    assert list(read_blocks(tmp_path / "out.parquet")) == []


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_stopped_and_restarted_is_byte_equal(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 6)
    source, whole, broken = tmp_path / "in.txt", tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    source.write_text("\n".join(reviews(20)) + "\n", encoding="utf-8")
    run(language_model, input=source, output=whole)
    seen, check = 0, stopping.check

    def at_the_fifth(where: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            stopping.ask("a test")
        check(where)

    with monkeypatch.context() as patched:
        patched.setattr(stopping, "check", at_the_fifth)
        with pytest.raises(Stopped, match=r"embed was stopped by a test\. The same command goes on\."):
            run(language_model, input=source, output=broken)
    stopping.forget()
    assert not broken.exists()
    partial = tmp_path / f".broken{suffix}.partial"
    assert 0 < len(list(partial.glob("*.block"))) < 4
    with pytest.raises(InputError, match="begun otherwise: pooling was concat, now mean"):
        run(language_model, "mean", input=source, output=broken)
    (partial / "00000000.block").write_bytes(b"damaged")
    _, log = run(language_model, input=source, output=broken)
    assert "00000000.block is damaged; its texts are embedded again" in log
    assert broken.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_what_cannot_be_embedded_is_refused(language_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.csv has no known suffix\. Vectors end in \.parquet, \.npy, \.jsonl\."):
        run(language_model, texts=("film",), output=tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"nothing is not there; only classifiers and language models can embed"):
        load_embedder(tmp_path / "nothing")
    with pytest.raises(InputError, match="no classifier or language model yours, and no run of this name has one in"):
        run(Path("yours"), texts=("film",))
    copy = shutil.copytree(language_model, tmp_path / "copy")
    weights = bytearray((copy / "encoder.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "encoder.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"encoder\.safetensors was changed after sealing"):
        load_embedder(copy)


def test_the_command(language_model: Path, classifier: Path) -> None:
    for model in (language_model, classifier):
        asked = ["embed", "a film", "", "--model", str(model), "--pooling", "mean", "--device", "cpu"]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [(row["id"], len(row["vector"])) for row in rows] == [("0", 8), ("1", 8)]
        assert "cleaned: empty 1 (empty and blank texts get the vector of an empty document)" in result.stderr
