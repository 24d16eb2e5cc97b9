"""What the benchmark works on: lengths and words like those of real reviews, and the FLOP of a token."""

import io
import tarfile
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

from pipeline.benchmark import data, flop
from pipeline.benchmark.sizes import SMALL_LSTM, TINY, WORD_LSTM
from pipeline.benchmark.text_data import ARCHIVE, prepare_archive, write_archive
from pipeline.benchmark.turns import Turns, Work
from pipeline.corpus.trees import read_imdb
from pipeline.model.architecture import Architecture


def test_reviews_are_as_long_as_imdbs() -> None:
    lengths = data.review_lengths(20_000, data.MEDIAN_WORDS, np.random.default_rng(0))
    assert abs(np.median(lengths) - 176) < 5
    assert abs(lengths.mean() - 233) < 8  # of the 25,000 training reviews: 233.8
    texts = data.reviews(lengths[:50], np.random.default_rng(0))
    words = [len(text.split()) for text in texts]
    assert np.allclose(words, lengths[:50], rtol=0.15, atol=5)  # some endings stand by themselves
    assert any("<br />" in text for text in texts)


def test_training_batches_hold_documents_of_similar_length() -> None:
    batches = data.lengths_by_batch(4, 64, np.random.default_rng(0)).reshape(4, 64)
    spread = np.ptp(batches, axis=1) / batches.mean(axis=1)
    assert spread.max() < 0.2
    assert (np.diff(batches.mean(axis=1)) > 0).all()


def test_no_two_words_of_a_vocabulary_are_the_same() -> None:
    words = data.vocabulary(60_000)
    assert len(words) == len(set(words)) == 60_000
    assert words[2] == "xxbos"


def test_ids_follow_zipf_and_documents_begin_with_xxbos() -> None:
    lengths = np.array([3000, 2000, 5000])
    ids = data.documents_of(lengths, 1000, np.random.default_rng(0))
    assert ids[[0, 3000, 5000]].tolist() == [data.BOS_ID] * 3
    counts = np.bincount(ids, minlength=1000)
    assert len(counts) == 1000
    assert counts[9] > 5 * counts[40] > 0


def test_an_archive_reads_as_imdb(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.tar.gz", enumerate(f"text {i}" for i in range(16)))
    found = list(read_imdb(tmp_path / "a.tar.gz"))
    assert [document.text for document in found] == [f"text {i}".encode() for i in range(16)]
    counts = {split: sum(d.split == split for d in found) for split in ("train", "test", "unlabelled")}
    assert counts == {"train": 4, "test": 4, "unlabelled": 8}
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "a.tar.gz").read_bytes())) as archive:
        assert len(archive.getnames()) == 16


def test_of_a_given_archive_the_first_reviews_are_unpacked(tmp_path: Path) -> None:
    write_archive(tmp_path / "given.tar", enumerate(f"text {i}" for i in range(TINY.archive_documents + 1)))
    prepare_archive(Turns(Pipe()[0]), Work(tmp_path, tmp_path, TINY, {}, tmp_path / "given.tar"))
    found = [document.text for document in read_imdb(tmp_path / ARCHIVE)]
    assert found == [f"text {i}".encode() for i in range(TINY.archive_documents)]


def test_the_work_of_a_token_is_what_the_formula_says() -> None:
    awd_lstm = Architecture(60_000, 400, 1152, 3)
    assert flop.lstm_weights(awd_lstm) == 4 * (1152 * 1552 + 1152 * 2304 + 400 * 1552) == 20_251_648
    assert flop.of_language_model_token(awd_lstm) == 6 * (20_251_648 + 24_000_000)
    assert flop.of_documents(awd_lstm, np.array([100, 2000]), 1440) == 20_251_648 * (6 * 100 + 2 * 2000 + 4 * 1440)
    assert 4.5e6 < flop.lstm_weights(Architecture(8_000, *SMALL_LSTM)) < 5.5e6
    assert (awd_lstm.emb_sz, awd_lstm.n_hid, awd_lstm.n_layers) == WORD_LSTM
