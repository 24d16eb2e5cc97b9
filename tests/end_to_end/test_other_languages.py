"""A language model of one's own in a language of one's own: pretrained on plain text or a table, then fine-tuned."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import call, manifest

from pipeline.text.tokenizer import load_tokenizer

GREEK = {
    "good": ["υπέροχη", "έξυπνη", "όμορφη"], "bad": ["βαρετή", "άθλια", "αδιάφορη"],
    "frame": "Ήταν πολύ {word} αυτή εδώ {noun}, από την αρχή ως το τέλος. ", "noun": ["ταινία", "μουσική", "ιστορία"],
}
ARABIC = {
    "good": ["رائع", "جميل", "ممتع"], "bad": ["ممل", "سيئ", "ضعيف"],
    "frame": "كان {noun} {word} من البداية إلى النهاية، وقلت ﻻ شيء غير ذلك. ", "noun": ["الفيلم", "المشهد", "الحوار"],
}
CHINESE = {
    "good": ["精彩", "感人", "有趣"], "bad": ["无聊", "糟糕", "乏味"],
    "frame": "这部电影的{noun}从头到尾都很{word}、ＡＢ级。", "noun": ["音乐", "剧情", "演员", "结局"],
}
LANGUAGES = {"greek": GREEK, "arabic": ARABIC, "chinese": CHINESE}
OPTIONS = [
    "--set", "run.device=cpu", "--set", "run.precision=fp32", "--set", "tokenize_corpus.workers=1",
    "--set", "finetune_lm.seq_len=32", "--set", "finetune_lm.phases.1.epochs=3",
]


def review(language: dict[str, object], label: str, rng: random.Random, sentences: int) -> str:
    frame, words, nouns = language["frame"], language[label], language["noun"]
    assert isinstance(frame, str)
    assert isinstance(words, list)
    assert isinstance(nouns, list)
    return "".join(frame.format(word=rng.choice(words), noun=rng.choice(nouns)) for _ in range(sentences))


def as_text(path: Path, texts: list[str]) -> list[str]:
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return ["--source", str(path), "--set", "prepare_corpus.kind=plain-text"]


def as_parquet(path: Path, texts: list[str]) -> list[str]:
    """As wiki dumps come: columns id, title, text."""
    table = {"id": [str(i) for i in range(len(texts))], "title": ["-"] * len(texts), "text": texts}
    pq.write_table(pa.table(table), path.with_suffix(".parquet"))
    return ["--source", str(path.with_suffix(".parquet")), "--set", "prepare_corpus.label_column=none"]


@pytest.mark.parametrize(
    ("name", "tokenizer", "written"),
    [("greek", "subword", as_text), ("arabic", "char", as_text), ("chinese", "subword", as_parquet)],
)
def test_pretrain_then_fine_tune(
    tmp_path: Path, name: str, tokenizer: str, written: Callable[[Path, list[str]], list[str]]
) -> None:
    rng, language = random.Random(3), LANGUAGES[name]
    texts = [review(language, rng.choice(["good", "bad"]), rng, 4) for _ in range(40)]
    home = ["--home", str(tmp_path)]
    pretrain = [
        "--recipe", "smoke", "--run", "own", *home, *OPTIONS, *written(tmp_path / "wiki.txt", texts),
        "--set", f"tokenize_corpus.tokenizer={tokenizer}", "--set", "tokenize_corpus.vocab_size=60",
        "--set", "tokenize_corpus.model_type=bpe",
        "--set", "tokenize_corpus.character_coverage=1.0", "--set", "tokenize_corpus.normalize=NFKC",
    ]
    call("run", *pretrain, "--until", "finetune_lm")
    ids, lm = tmp_path / "data/own/ids", tmp_path / "models/own/lm-fwd"
    assert manifest(ids)["metrics"]["unknown_share"]["train"] == 0
    vocabulary = json.loads((ids / "vocabulary.json").read_text(encoding="utf-8"))
    assert not any(sign in token for token in vocabulary for sign in "ﻻＡＢ"), "NFKC folds them"
    tokens = load_tokenizer(ids / "tokenizer")
    assert tokens.detokenize(tokens.tokenize(texts[0][:40].strip())).replace(" ", "")

    table = tmp_path / "reviews.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for i in range(80):
            label = ("good", "bad")[i % 2]
            writer.writerow([f"{review(language, label, rng, 2)}{i}", label])
    fine_tune = ["--recipe", "smoke", "--source", str(table), *home, *OPTIONS]
    call("run", *fine_tune, "--set", f"inputs.start_lm={lm}", "--until", "finetune_lm")
    tuned = manifest(tmp_path / "models/smoke/lm-fwd")
    assert tuned["metrics"]["started_from"] == manifest(lm)["fingerprint"]
    assert tuned["identity"]["tokenizer"] == manifest(lm)["identity"]["tokenizer"]
    scratch = ["--run", "scratch", "--set", f"inputs.ids={tmp_path / 'data/smoke/ids'}", "--until", "finetune_lm"]
    call("run", *fine_tune, *scratch)
    from_scratch = manifest(tmp_path / "models/scratch/lm-fwd")
    assert tuned["metrics"]["valid_loss"] < from_scratch["metrics"]["valid_loss"]
