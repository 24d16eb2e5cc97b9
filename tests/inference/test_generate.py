"""Text from language models: the filters, seeds, greedy against fastai's own model, both directions, all tokenizers."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_language_models import VOCABULARY, fastai_model, seal_language_model

from pipeline.errors import DivergedError, UsageError
from pipeline.inference.generate import Sample, Sampling, draw, filtered, generate
from pipeline.inference.language_model import LanguageModelBundle, load_language_model_bundle
from pipeline.settings import RunSettings
from pipeline.text.char import CharTokenizer
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.subword import train_subword
from pipeline.text.tokenizer import Tokenizer

FP32 = RunSettings(precision="fp32", device="cpu")
PLAIN = Sampling(temperature=1.0)
LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=40).map(np.array)


def none_of(logits: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(len(logits), dtype=bool)


def open_model(folder: Path, **how: Any) -> LanguageModelBundle:
    return load_language_model_bundle(seal_language_model(folder, **how), FP32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> LanguageModelBundle:
    """A model that ends no document soon."""
    return open_model(tmp_path_factory.mktemp("lm") / "lm", bias={"xxbos": -9.0, "xxeos": -9.0})


def last(bundle: LanguageModelBundle, prompt: str, n_samples: int = 1, **how: Any) -> list[Sample]:
    *_, samples = generate(bundle, prompt, Sampling(**how), n_samples)
    return samples


# --- filters ------------------------------------------------------------------------------------


@given(LOGITS, st.floats(0.01, 5), st.integers(0, 45), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.2, 3))
def test_probabilities_sum_to_one(  # noqa: PLR0917
    logits: NDArray[Any], temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    seen = np.arange(len(logits)) % 2 == 0
    found = filtered(logits, Sampling(temperature, top_k, top_p, min_p, penalty), seen, ~none_of(logits))
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    if top_k:
        assert np.count_nonzero(found) <= top_k


@given(LOGITS)
def test_without_filters_it_is_softmax(logits: NDArray[Any]) -> None:
    expected = torch.softmax(torch.from_numpy(logits), dim=0).numpy()
    assert filtered(logits, PLAIN, none_of(logits), ~none_of(logits)) == pytest.approx(expected)


@given(LOGITS, st.integers(1, 45))
def test_top_k_keeps_the_k_most_probable(logits: NDArray[Any], k: int) -> None:
    before = filtered(logits, PLAIN, none_of(logits), ~none_of(logits))
    kept = filtered(logits, Sampling(1.0, top_k=k), none_of(logits), ~none_of(logits)) > 0
    assert np.count_nonzero(kept) == min(k, len(logits))
    assert kept.all() or before[kept].min() >= before[~kept].max()


@given(LOGITS, st.floats(0.05, 0.99))
def test_top_p_keeps_the_smallest_set(logits: NDArray[Any], p: float) -> None:
    before = filtered(logits, PLAIN, none_of(logits), ~none_of(logits))
    kept = filtered(logits, Sampling(1.0, top_p=p), none_of(logits), ~none_of(logits)) > 0
    n_kept, most = np.count_nonzero(kept), np.sort(before)[::-1]
    assert before[kept].sum() == pytest.approx(most[:n_kept].sum())
    assert before[kept].sum() >= p - 1e-12
    assert most[: n_kept - 1].sum() < p + 1e-12


@given(LOGITS, st.floats(0, 1))
def test_min_p_keeps_what_is_probable_enough(logits: NDArray[Any], p: float) -> None:
    before = filtered(logits, PLAIN, none_of(logits), ~none_of(logits))
    kept = filtered(logits, Sampling(1.0, min_p=p), none_of(logits), ~none_of(logits)) > 0
    assert kept.tolist() == ((before >= p * before.max()) & (before > 0)).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1e-300])
def test_cold_is_greedy(temperature: float) -> None:
    logits = np.array([1.0, 3.0, 2.0, -5.0])
    found = filtered(logits, Sampling(temperature, top_p=0.5), none_of(logits), ~none_of(logits))
    assert found.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_what_is_not_allowed_is_never_chosen() -> None:
    logits, allowed = np.array([9.0, 1.0, 2.0]), np.array([False, True, True])
    for temperature in (0.0, 1.0):
        assert filtered(logits, Sampling(temperature), none_of(logits), allowed)[0] == 0.0


def test_the_penalty_makes_seen_tokens_less_probable() -> None:
    logits, seen = np.array([2.0, -2.0, 1.0, -1.0]), np.array([True, True, False, False])
    found = filtered(logits, Sampling(1.0, repetition_penalty=2.0), seen, ~none_of(logits))
    expected = np.exp([1.0, -4.0, 1.0, -1.0])
    assert found == pytest.approx(expected / expected.sum())


def test_filters_come_in_the_order_that_is_told() -> None:
    """Top-k leaves 0.5, 0.3, 0.1 -> 0.56, 0.33, 0.11, of which top-p 0.85 needs two and min-p 0.7 leaves one."""
    logits, nothing = np.log([0.5, 0.3, 0.1, 0.06, 0.04]), np.zeros(5, dtype=bool)
    for how, kept in (({"top_k": 3}, 3), ({"top_k": 3, "top_p": 0.85}, 2), ({"top_p": 0.85}, 3),
                      ({"top_k": 3, "top_p": 0.85, "min_p": 0.7}, 1)):
        assert np.count_nonzero(filtered(logits, Sampling(1.0, **how), nothing, ~nothing)) == kept  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).filter(any), st.floats(0, 1, exclude_max=True))
def test_a_draw_falls_on_a_possible_token(weights: list[float], number: float) -> None:
    probabilities = np.array(weights) / sum(weights)
    token = draw(probabilities, number)
    assert probabilities[token] > 0
    assert probabilities[:token].sum() <= number + 1e-9
    assert probabilities[: token + 1].sum() >= number - 1e-9


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"temperature": -0.1}, r"temperature cannot be -0\.1\. It must be 0 \(the most probable token, always\) or"),
        ({"temperature": math.nan}, "temperature cannot be nan"),
        ({"temperature": math.inf}, "temperature cannot be inf"),
        ({"top_k": -1}, r"top_k cannot be -1\. It must be 0 \(off\) or more"),
        ({"top_p": 0.0}, r"top_p cannot be 0\.0\. It must be above 0 and at most 1"),
        ({"min_p": 1.1}, r"min_p cannot be 1\.1\. It must be 0 \(off\) to 1\."),
        ({"repetition_penalty": 0.0}, r"repetition_penalty cannot be 0\.0\. It must be 0\.1 or more; 1 is off"),
        ({"max_tokens": 0}, r"max_tokens cannot be 0\. It must be 1 or more\."),
        ({"seed": -1}, r"seed cannot be -1\. It must be 0 or more\."),
    ],
)
def test_values_out_of_range_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sampling(**how)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_greedy_is_what_fastais_model_finds_most_probable(tmp_path: Path, direction: str) -> None:
    folder = seal_language_model(tmp_path / "lm", direction=direction, bias={"xxbos": -9.0, "xxeos": -9.0})
    samples = last(load_language_model_bundle(folder, FP32), "A warm film", temperature=0.0, max_tokens=30)
    model, names = fastai_model(folder), list(VOCABULARY)
    words = ["a", "warm", "film"][:: -1 if direction == "bwd" else 1]
    ids = [names.index(token) for token in ("xxbos", *words)]
    model.reset()
    found = []
    with torch.inference_mode():
        logits = model(torch.tensor([ids]))[0][0, -1, : len(names)]
        for _ in range(30):
            logits[[names.index(token) for token in ("xxunk", "xxpad", "xxfld")]] = -torch.inf
            found.append(int(logits.argmax()))
            logits = model(torch.tensor([[found[-1]]]))[0][0, -1, : len(names)]
    assert samples[0].tokens == tuple(names[i] for i in found)
    assert samples[0].ended == "max_tokens"


def test_a_sample_is_the_same_in_any_number_of_samples(bundle: LanguageModelBundle) -> None:
    five = last(bundle, "the story", 5, temperature=1.0, max_tokens=40)
    assert [sample.tokens for sample in last(bundle, "the story", 2, temperature=1.0, max_tokens=40)] == [
        sample.tokens for sample in five[:2]
    ]
    assert len({sample.tokens for sample in five}) == 5
    assert last(bundle, "the story", temperature=1.0, max_tokens=40, seed=1)[0].tokens != five[0].tokens


def test_it_grows_by_a_token_a_step_and_can_be_left(bundle: LanguageModelBundle) -> None:
    steps = generate(bundle, "the", Sampling(max_tokens=50), 3)
    for n_tokens, samples in enumerate(itertools.islice(steps, 4), 1):
        assert [len(sample.tokens) for sample in samples] == [n_tokens] * 3
        assert {sample.ended for sample in samples} == {None}
        assert not torch.is_inference_mode_enabled()
    longer = next(steps)
    assert [sample.tokens[:4] for sample in longer] == [sample.tokens for sample in samples]


def test_samples_end_one_by_one(tmp_path: Path) -> None:
    bundle = open_model(tmp_path / "lm", bias={"xxbos": -1.0, "xxeos": -1.0})
    samples = last(bundle, "the film", 12, temperature=1.0, max_tokens=8)
    ended = {sample.ended for sample in samples}
    assert ended == {"document", "max_tokens"}
    assert all((len(sample.tokens) == 8) == (sample.ended == "max_tokens") for sample in samples)
    assert len({len(sample.tokens) for sample in samples}) > 2
    alone = [last(bundle, "the film", n, temperature=1.0, max_tokens=8)[-1].tokens for n in range(1, 13)]
    assert alone == [sample.tokens for sample in samples]


def test_an_empty_prompt_begins_a_document_that_is_not_empty(tmp_path: Path) -> None:
    bundle = open_model(tmp_path / "lm", bias={"xxbos": 30.0})
    for prompt in ("", "  \n"):
        for sample in last(bundle, prompt, 5):
            assert (len(sample.tokens), sample.ended) == (1, "document")
    assert last(bundle, "film")[0].tokens == ()
    assert last(bundle, "film")[0].text == "film"


def test_no_one_writes_unknown_or_padding(tmp_path: Path) -> None:
    bundle = open_model(tmp_path / "lm", bias={"xxunk": 30.0, "xxpad": 30.0, "xxfld": 30.0, "xxbos": -9.0})
    for temperature in (0.0, 2.0):
        tokens = last(bundle, "zebra", temperature=temperature, max_tokens=50)[0].tokens
        assert not {"xxunk", "xxpad", "xxfld", "xxbos", "xxeos"} & set(tokens)


def test_a_vocabulary_of_special_tokens_alone_will_do(tmp_path: Path) -> None:
    bundle = open_model(tmp_path / "lm", vocabulary=SPECIAL_TOKENS)
    for prompt in ("", "anything"):
        assert last(bundle, prompt, 3, max_tokens=20)[0].ended is not None


def test_a_long_prompt_is_read_whole(bundle: LanguageModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "a dull story the cast " * 20
    whole = last(bundle, prompt, max_tokens=5)
    monkeypatch.setattr("pipeline.inference.generate.PROMPT_STEP_TOKENS", 7)
    assert last(bundle, prompt, max_tokens=5) == whole
    assert last(bundle, prompt[22:], max_tokens=5)[0].prompt != whole[0].prompt


def test_the_penalty_spares_marks_and_counts_the_prompt(tmp_path: Path) -> None:
    bundle = open_model(tmp_path / "lm", bias={"xxmaj": 30.0, "film": 25.0, "xxbos": -9.0})
    (sample,) = last(bundle, "film", temperature=0.0, repetition_penalty=50.0, max_tokens=5)
    assert sample.tokens == ("xxmaj",) * 5
    bundle = open_model(tmp_path / "other", bias={"film": 30.0, "xxbos": -9.0})
    assert last(bundle, "dull", temperature=0.0, repetition_penalty=50.0, max_tokens=5)[0].tokens.count("film") == 1
    assert "film" not in last(bundle, "film", temperature=0.0, repetition_penalty=50.0, max_tokens=5)[0].tokens


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"gives logits that are not finite\. Try --precision fp32"):
        last(open_model(tmp_path / "lm", broken=True), "film")
    with pytest.raises(UsageError, match=r"0 samples cannot be written\. Ask for 1 or more\."):
        generate(open_model(tmp_path / "other"), "film", PLAIN, 0)


# --- text ---------------------------------------------------------------------------------------


def as_text(bundle: LanguageModelBundle, prompt: str, tokens: tuple[str, ...]) -> tuple[str, str]:
    """Text and what was written, if the model had written `tokens`."""
    first = next(generate(bundle, prompt, PLAIN))[0]
    sample = Sample(first.prompt, tokens)
    return sample.text, sample.written


def test_words_come_out_as_people_write_them(bundle: LanguageModelBundle) -> None:
    for prompt, tokens, text in (
        ("The Zebra did ", ("n't", "xxup", "fine", "xxrep", "3", "!"), "The Zebra didn't FINE!!!"),
        ("A film", ("xxrep",), "A film"),
        ("A film", ("xxrep", "3"), "A film"),
        ("A film", ("xxmaj",), "A film"),
        ("", ("xxmaj", "the", "xxwrep", "3", "dull"), "The dull dull dull"),
        ("A film", (), "A film"),
    ):
        found, written = as_text(bundle, prompt, tokens)
        assert found == text
        assert prompt.rstrip() + written == text


def test_a_backward_model_writes_what_comes_before(tmp_path: Path) -> None:
    bundle = open_model(tmp_path / "lm", direction="bwd")
    assert as_text(bundle, " Film!", ("warm", "a", "xxmaj")) == ("A warm Film!", "A warm ")
    assert as_text(bundle, "film", ("xxmaj", "warm")) == ("warm Film", "warm")  # the model makes it a capital


@pytest.mark.parametrize("kind", ["char", "subword"])
def test_pieces_are_joined(tmp_path: Path, kind: str) -> None:
    text = "A warm, witty film! The dull story was FINE. " * 20
    tokenizer: Tokenizer = CharTokenizer()
    if kind == "subword":
        tokenizer, _ = train_subword([text] * 3, "fastai", "unigram", 30, 1.0)
    tokens = tokenizer.tokenize(text)
    vocabulary = (*SPECIAL_TOKENS, *sorted({*tokens} - {*SPECIAL_TOKENS}))
    bundle = open_model(tmp_path / "lm", vocabulary=vocabulary, tokenizer=tokenizer)
    whole = tokenizer.tokenize("A warm film. The dull story")
    prompt = tokenizer.tokenize("A warm film. The du")
    assert whole[: len(prompt)] == prompt
    found, written = as_text(bundle, "A warm film. The du", tuple(whole[len(prompt) :]))
    assert (found.lower(), written) == ("a warm film. the dull story", "ll story")
    assert last(bundle, "A warm film", 2, max_tokens=20)[0].text.startswith("A warm film")
