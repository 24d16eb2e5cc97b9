"""A language model started from one with another vocabulary: rows as in fastai, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.text.learner import match_embeds
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipeline.errors import DataError, InputError
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.matching import load_matched, match_pieces, match_tokens, match_vocabulary, record
from pipeline.model.unused_rows import SILENCE
from pipeline.model.weights import encoder_tensors, save_language_model
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.vocabulary import write_vocabulary

OLD = [*SPECIAL_TOKENS, *["the", "film", "was", "good", "bad", "and", "very", "well", "made"]]
NEW = [*SPECIAL_TOKENS, *["good", "unheard", "bad", "quite", "film"]]


def save_old(folder: Path, vocabulary: list[str] = OLD, tie_weights: bool = True) -> Path:
    """A model of `vocabulary` with random weights, as an lm artifact holds it."""
    folder.mkdir()
    torch.manual_seed(1)
    architecture = Architecture(len(vocabulary), 8, 12, 2, tie_weights)
    model = build_language_model(architecture)
    torch.nn.init.normal_(model[1].decoder.bias)
    save_language_model(model, folder)
    architecture.save(folder / "architecture.json")
    write_vocabulary(folder, vocabulary)
    return folder


@pytest.mark.parametrize("tie_weights", [True, False])
def test_rows_are_those_of_fastais_match_embeds(tmp_path: Path, tie_weights: bool) -> None:
    folder = save_old(tmp_path / "old", tie_weights=tie_weights)
    architecture = Architecture(len(NEW), 8, 12, 2, tie_weights)
    model = build_language_model(architecture)
    match = match_vocabulary(folder, NEW, pieces=False)
    load_matched(folder, model, architecture, match)
    encoder, decoder = load_file(folder / "encoder.safetensors"), load_file(folder / "decoder.safetensors")
    theirs = match_embeds(
        {"0.encoder.weight": encoder["embedding.weight"][: len(OLD)], "1.decoder.bias": decoder["bias"][: len(OLD)]},
        OLD, NEW,
    )
    torch.testing.assert_close(model[0].encoder.weight[: len(NEW)], theirs["0.encoder.weight"])
    torch.testing.assert_close(model[1].decoder.bias[: len(NEW)], theirs["1.decoder.bias"])
    assert torch.equal(model[0].encoder.weight[NEW.index("film")], encoder["embedding.weight"][OLD.index("film")])
    assert (model[1].decoder.weight is model[0].encoder.weight) == tie_weights
    if not tie_weights:
        torch.testing.assert_close(model[1].decoder.weight[NEW.index("bad")], decoder["weight"][OLD.index("bad")])
        torch.testing.assert_close(model[1].decoder.weight[NEW.index("quite")], decoder["weight"][: len(OLD)].mean(0))
    for name, tensor in encoder_tensors(model[0]).items():
        assert name == "embedding.weight" or torch.equal(tensor, encoder[name])
    assert match.counts == {"same": 12, "several": 0, "mean": 2}


def test_rows_that_no_token_uses_are_never_predicted(tmp_path: Path) -> None:
    architecture = Architecture(len(NEW), 8, 12, 2)
    assert architecture.rows > len(NEW)
    model = build_language_model(architecture).eval()
    load_matched(save_old(tmp_path / "old"), model, architecture, match_tokens(OLD, NEW))
    with torch.no_grad():
        scores = model(torch.randint(9, len(NEW), (4, 12)))[0]
    best = scores[..., : len(NEW)].max(-1, keepdim=True).values
    assert (scores[..., len(NEW) :] + SILENCE <= best + 1e-4).all()


def test_the_record_tells_types_and_tokens() -> None:
    counts = np.zeros(len(NEW), dtype=np.int64)
    counts[[NEW.index("good"), NEW.index("unheard"), NEW.index("xxbos")]] = [70, 10, 20]
    assert record(match_tokens(OLD, NEW), counts) == {
        "types": round(12 / 14, 6), "tokens": 0.9,
        "rows": {
            "same": {"types": 12, "tokens": 0.9}, "several": {"types": 0, "tokens": 0.0},
            "mean": {"types": 2, "tokens": 0.1},
        },
    }


WORDS = [*SPECIAL_TOKENS, "film", "films", "filming", "sing", "ing", "'s", "it's", ".", "…", "s", "2000", "ταινία"]
PIECES = {  # the words each piece starts from
    "▁film": ["film"], "▁fil": ["film", "films", "filming"], "▁sin": ["sing"], "ing": ["filming", "sing", "ing"],
    "s": ["films", "'s", "it's", "s"], "'s": ["'s"], "▁'": ["'s"], ".": ["."], "▁.": ["."], "00": ["2000"],
    "ία": ["ταινία"], "▁ταιν": ["ταινία"], "▁": [], "▁x": [], "!": [], "zzz": [], "x": [], "▁s": ["s"],
    "xxmaj": ["xxmaj"], "xxbos": ["xxbos"],
}


def test_pieces_start_from_the_words_they_are_parts_of() -> None:
    vocabulary = [*PIECES, "▁xx"]
    match = match_pieces(WORDS, vocabulary)
    old = torch.eye(len(WORDS))
    rows = match.rows(old, len(vocabulary))
    for row, (piece, words) in zip(rows, PIECES.items(), strict=False):
        expected = old[[WORDS.index(word) for word in words]].mean(0) if words else old.mean(0)
        torch.testing.assert_close(row, expected, msg=f"{piece!r} started from {row.nonzero().flatten().tolist()}")
    torch.testing.assert_close(rows[-1], old.mean(0))  # no special token begins like a word
    assert match.counts == {"same": 7, "several": 8, "mean": 6}


@given(st.lists(st.text(min_size=1), unique=True), st.lists(st.text(min_size=1), unique=True))
def test_any_piece_finds_every_word_that_begins_or_ends_with_it(words: list[str], pieces: list[str]) -> None:
    match = match_pieces(words, pieces)
    for number, piece in enumerate(pieces):
        if piece.startswith("▁") or not piece[0].isalnum():
            stem = piece.removeprefix("▁")
            expected = [stem] if stem in words else [word for word in words if stem and word.startswith(stem)]
        else:
            expected = [word for word in words if word.endswith(piece)]
        found = match.several.get(number, match.same[number : number + 1])
        assert sorted(words[row] for row in found if row >= 0) == sorted(expected)


@pytest.mark.parametrize("pieces", [False, True])
def test_a_language_model_that_shares_no_word_is_refused(tmp_path: Path, pieces: bool) -> None:
    folder = save_old(tmp_path / "old")
    with pytest.raises(DataError, match=r"old knows no token of this text but special ones.*inputs\.start_lm=none"):
        match_vocabulary(folder, [*SPECIAL_TOKENS, "ταινία"], pieces=pieces)


def test_a_folder_whose_parts_do_not_fit_is_refused(tmp_path: Path) -> None:
    folder = save_old(tmp_path / "old")
    architecture = Architecture(len(NEW), 8, 12, 2)
    model, match = build_language_model(architecture), match_tokens(OLD, NEW)

    def damaged(name: str) -> Path:
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        return copy

    short = damaged("short")
    write_vocabulary(short, OLD[:-1])
    with pytest.raises(InputError, match=r"short: architecture\.json and vocabulary\.json do not fit together"):
        load_matched(short, model, architecture, match_vocabulary(short, NEW, pieces=False))
    few = damaged("few")
    encoder = load_file(few / "encoder.safetensors")
    save_file(encoder | {"embedding.weight": encoder["embedding.weight"][:5].clone()}, few / "encoder.safetensors")
    with pytest.raises(InputError, match=r"few has 5 rows for 18 tokens"):
        load_matched(few, model, architecture, match)
    for file, key in (("encoder.safetensors", "lstm.0.bias_hh"), ("encoder.safetensors", "embedding.weight"),
                      ("decoder.safetensors", "bias")):
        lacking = damaged(f"without-{key}")
        tensors = load_file(lacking / file)
        del tensors[key]
        save_file(tensors, lacking / file)
        with pytest.raises(InputError, match=rf"without-{key}/{file} lacks tensor {key}\."):
            load_matched(lacking, model, architecture, match)
    wide = Architecture(len(NEW), 8, 20, 2)
    with pytest.raises(InputError, match=r"tensor lstm\.0\.weight_ih is \[48, 8\] .* the model needs \[80, 8\]"):
        load_matched(folder, build_language_model(wide), wide, match)
