"""The plain classifier against the model that was trained: same logits, any lengths, any company."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_classifiers import ARCHITECTURE, Rows, random_classifier, random_rows, save, trained_classifier

from pipeline.errors import InputError
from pipeline.inference.classifier import Classifier, load_classifier, pooled_from
from pipeline.model.architecture import HeadShape
from pipeline.training.loaders import pad_documents

SHAPES = (HeadShape(2, (5,), 5, 17), HeadShape(3, (7, 4), 4, 1000), HeadShape(2, (), 6, 6))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Classifier, HeadShape]]:
    """The model that was trained and the plain one, of each shape."""
    models = [(trained_classifier(SHAPES[0]), SHAPES[0]), *((random_classifier(shape), shape) for shape in SHAPES)]
    folder = tmp_path_factory.mktemp("classifiers")
    return [
        (model, load_classifier(save(model, shape, folder / str(i)), torch.float32, CPU), shape)
        for i, (model, shape) in enumerate(models)
    ]


def longest_first(rows: Rows) -> Rows:
    return sorted(rows, key=len, reverse=True)


def padded_logits(model: Any, rows: Rows, shape: HeadShape) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(pad_documents(rows, shape.seq_len))[0]
    return logits


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12), step_tokens=st.integers(1, 200),
    which=st.integers(0, len(SHAPES)), seed=st.integers(0, 3),
)
def test_logits_equal_those_of_the_trained_model(
    pairs: list[tuple[Any, Classifier, HeadShape]], lengths: list[int], step_tokens: int, which: int, seed: int
) -> None:
    trained, plain, shape = pairs[which]
    rows = [row[:: -1 if seed % 2 else 1] for row in longest_first(random_rows(lengths, seed))]
    with torch.inference_mode():
        found = plain(rows, step_tokens)
    together = padded_logits(trained, rows, shape)
    alone = torch.cat([padded_logits(trained, [row], shape) for row in rows])
    torch.testing.assert_close(found, together, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-6)


def test_training_left_its_mark(pairs: list[tuple[Any, Classifier, HeadShape]]) -> None:
    """The parity above is one of models that tell documents apart."""
    _, plain, _ = pairs[0]
    with torch.inference_mode():
        logits = plain(longest_first(random_rows([40, 30, 20, 10])), 100)
    assert float((logits[0] - logits[1:]).abs().min()) > 1e-4


@pytest.mark.parametrize("length", [1000, 3001])
def test_long_documents(pairs: list[tuple[Any, Classifier, HeadShape]], length: int) -> None:
    trained, plain, shape = pairs[2]
    rows = random_rows([length, 3])
    with torch.inference_mode():
        torch.testing.assert_close(plain(rows, 300), padded_logits(trained, rows, shape), rtol=0, atol=1e-6)


@settings(max_examples=60)
@given(length=st.integers(1, 60), seq_len=st.integers(2, 9), max_len=st.integers(1, 40), others=st.integers(1, 90))
def test_what_is_pooled_depends_on_the_document_alone(length: int, seq_len: int, max_len: int, others: int) -> None:
    """`pooled_from` against the chunks that fastai's SentenceEncoder keeps, alone and beside a longer document."""
    shape = HeadShape(2, (), seq_len, max_len)
    start = int(pooled_from(np.array([length]), shape)[0])
    for batch in ([length], sorted([length, others], reverse=True)):
        rows = [np.full(n, 5 if n == length else 6) for n in batch]
        x = pad_documents(rows, seq_len).numpy()
        kept = [i for i in range(0, x.shape[1], seq_len) if x.shape[1] - i <= max_len]
        if not kept:  # max_len below seq_len: the trained model fails
            assert max_len < seq_len
            continue
        row = x[batch.index(length)][kept[0] :]
        if max_len >= seq_len or len(batch) == 1:
            assert int((row == row[row != 1][-1]).sum()) == length - start


def test_lower_precision_stays_close(pairs: list[tuple[Any, Classifier, HeadShape]], tmp_path: Path) -> None:
    trained, _, shape = pairs[1]
    plain = load_classifier(save(trained, shape, tmp_path), torch.bfloat16, CPU)
    rows = longest_first(random_rows([50, 33, 20, 1]))
    with torch.inference_mode():
        found = plain(rows, 64)
    assert found.dtype == torch.float32
    assert plain.encoder.dtype == torch.bfloat16
    torch.testing.assert_close(found, padded_logits(trained, rows, shape), rtol=0, atol=0.05)


def test_precision_that_did_not_run_is_a_defect(pairs: list[tuple[Any, Classifier, HeadShape]]) -> None:
    _, plain, _ = pairs[1]

    class Upcast(torch.nn.Module):
        def forward(self, *given: Any) -> Any:
            output, state = layer(*given)
            return output.double(), state

    layer, plain.encoder.lstm[-1] = plain.encoder.lstm[-1], Upcast()
    try:
        with pytest.raises(RuntimeError, match=r"float32 was asked for, the encoder put out torch\.float64"):
            plain(random_rows([4]), 10)
    finally:
        plain.encoder.lstm[-1] = layer


def test_between_steps_may_end_the_work(pairs: list[tuple[Any, Classifier, HeadShape]]) -> None:
    calls = []

    def third_time() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pairs[1][1](random_rows([100]), 10, third_time)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("encoder.safetensors", {"lstm.1.bias_hh": None}, r"encoder\.safetensors lacks tensor lstm\.1\.bias_hh\."),
        ("head.safetensors", {"0.norm.weight": None}, r"head\.safetensors lacks tensor 0\.norm\.weight\."),
        ("encoder.safetensors", {"extra": torch.zeros(1)}, r"holds an unexpected tensor extra\."),
        ("head.safetensors", {"0.linear.weight": torch.zeros(5, 7)},
         r"tensor 0\.linear\.weight is \[5, 7\] torch\.float32, the architecture needs \[5, 18\] torch\.float32\."),
        ("encoder.safetensors", {"lstm.0.bias_ih": torch.zeros(32, dtype=torch.float16)},
         r"lstm\.0\.bias_ih is \[32\] torch\.float16, the architecture needs \[32\] torch\.float32\."),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, file: str, change: dict[str, torch.Tensor | None], message: str
) -> None:
    folder = save(random_classifier(SHAPES[0]), SHAPES[0], tmp_path)
    tensors = {k: v for k, v in (load_file(folder / file) | change).items() if v is not None}
    save_file(tensors, folder / file)
    with pytest.raises(InputError, match=message):
        load_classifier(folder, torch.float32, CPU)


def test_a_file_that_is_no_safetensors_file(tmp_path: Path) -> None:
    folder = save(random_classifier(SHAPES[0]), SHAPES[0], tmp_path)
    (folder / "encoder.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"encoder\.safetensors cannot be read: .* Restore it or make"):
        load_classifier(folder, torch.float32, CPU)


def test_weights_are_the_files_own(tmp_path: Path) -> None:
    """Names that are mapped wrongly would still load where layers have equal shapes."""
    trained = random_classifier(SHAPES[0])
    plain = load_classifier(save(trained, SHAPES[0], tmp_path), torch.float32, CPU)
    for number, layer in enumerate(plain.encoder.lstm):
        assert torch.equal(layer.weight_hh_l0, trained[0].module.rnns[number].weight_hh_l0_raw)
        assert torch.equal(layer.weight_ih_l0, trained[0].module.rnns[number].module.weight_ih_l0)
    assert plain.encoder.embedding.num_embeddings == ARCHITECTURE.rows
    assert not any(parameter.requires_grad for parameter in plain.parameters())
