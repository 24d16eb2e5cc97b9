"""Stage 3: choose the vocabulary and store every document as ids.

Reads tokens; writes `ids.bin`, `offsets.npy`, `documents.parquet`, `vocabulary.json`, `labels.json` and `tokenizer/`.
The vocabulary comes from train and unlabelled text only, or from the language model to start from.
"""

import json
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import stopping
from pipeline.artifact import Artifact, hash_json
from pipeline.corpus.documents import SPLITS
from pipeline.errors import DataError
from pipeline.making import StageOutcome
from pipeline.settings import NumericalizeCorpusSettings
from pipeline.stage import StageContext
from pipeline.text.arrays import append_array
from pipeline.text.rules import SPECIAL_TOKENS, UNK
from pipeline.text.vocabulary import ids_of_types, make_vocabulary, read_vocabulary, write_vocabulary

BLOCK_TOKENS = 4_000_000
LARGEST_UINT16_VOCABULARY = 65_536


def run(context: StageContext) -> StageOutcome:
    """Write ids for all documents.

    Raises DataError if there is no training text, if no token but special ones would get an id, or if most training
    tokens would be xxunk.
    """
    tokens = context.inputs["tokens"]
    types = pq.read_table(tokens.file("types.parquet"))
    names: list[str] = types["token"].to_pylist()
    counts = {split: types[split].to_numpy() for split in SPLITS}
    training = counts["train"] + counts["unlabelled"]
    if not training.any():
        raise DataError(f"{tokens.path} holds no training text.", "Give prepare_corpus a source with a train split.")
    lm = context.inputs.get("start_lm")
    settings: NumericalizeCorpusSettings = context.settings
    if lm is None:
        vocabulary = make_vocabulary(names, training, settings.min_freq, settings.max_vocab)
    else:
        vocabulary = read_vocabulary(lm.path)
        context.reporter.line(
            f"numericalize_corpus: {len(vocabulary):,} tokens inherited from {lm.path}; min_freq and max_vocab are not "
            "used"
        )
    if not set(vocabulary) - set(SPECIAL_TOKENS):
        raise DataError(
            f"No token of the training text gets an id with numericalize_corpus.min_freq {settings.min_freq}.",
            "Lower numericalize_corpus.min_freq.",
        )
    id_of_type = ids_of_types(names, {token: number for number, token in enumerate(vocabulary)})
    unknown = {split: _share(counts[split], id_of_type == vocabulary.index(UNK)) for split in SPLITS}
    in_training = _share(training, id_of_type == vocabulary.index(UNK))
    if in_training is not None and in_training > 0.5:
        raise DataError(
            f"{in_training:.0%} of the training tokens would be {UNK}.",
            _mend_unknown(training, settings, lm),
        )

    _write_ids(context, tokens, id_of_type, len(vocabulary))
    write_vocabulary(context.work, vocabulary)
    _write_documents(context, tokens)
    shutil.copyfile(tokens.file("offsets.npy"), context.work / "offsets.npy")
    shutil.copyfile(tokens.file("labels.json"), context.work / "labels.json")
    shutil.copytree(tokens.path / "tokenizer", context.work / "tokenizer", dirs_exist_ok=True)
    context.reporter.line(
        f"numericalize_corpus: vocabulary of {len(vocabulary):,}, {in_training:.2%} of the training tokens unknown"
    )
    return StageOutcome(
        {
            "vocabulary": len(vocabulary),
            "tokens": {split: int(counts[split].sum()) for split in SPLITS},
            "unknown_share": {split: None if share is None else round(share, 6) for split, share in unknown.items()},
        },
        {**tokens.manifest.identity, "vocabulary": hash_json(vocabulary)},
    )


def _share(counts: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> float | None:
    """Share of the tokens that belong to the chosen types; None without tokens."""
    total = int(counts.sum())
    return int(counts[chosen].sum()) / total if total else None


def _mend_unknown(
    training: npt.NDArray[np.int64], settings: NumericalizeCorpusSettings, lm: Artifact | None
) -> str:
    if lm is not None:
        return "The language model's vocabulary does not fit this text; take another inputs.start_lm or none."
    frequent = int((training >= settings.min_freq).sum())
    if frequent > settings.max_vocab - len(SPECIAL_TOKENS):
        return (
            f"Raise numericalize_corpus.max_vocab above {settings.max_vocab}; {frequent:,} tokens occur often enough."
        )
    return f"Lower numericalize_corpus.min_freq below {settings.min_freq}, or give more text."


def _write_ids(
    context: StageContext, tokens: Artifact, id_of_type: npt.NDArray[np.uint32], vocabulary_size: int
) -> None:
    """ids.bin: the id of every token of the corpus, in blocks."""
    narrow = id_of_type.astype("<u2" if vocabulary_size <= LARGEST_UINT16_VOCABULARY else "<u4")
    type_ids = np.memmap(tokens.file("type_ids.bin"), dtype="<u4", mode="r")
    with (
        (context.work / "ids.bin").open("wb") as stream,
        context.reporter.task("numericalizing", len(type_ids), "tokens") as task,
    ):
        for at in range(0, len(type_ids), BLOCK_TOKENS):
            stopping.check("numericalize_corpus")
            block = type_ids[at : at + BLOCK_TOKENS]
            append_array(stream, np.take(narrow, block))
            task.advance(len(block))


def _write_documents(context: StageContext, tokens: Artifact) -> None:
    table = pq.read_table(tokens.file("documents.parquet"))
    labels: list[str] = json.loads(tokens.file("labels.json").read_text(encoding="utf-8"))
    number: dict[Any, int] = {label: i for i, label in enumerate(labels)}
    label_ids = [number.get(label, -1) for label in table["label"].to_pylist()]
    at = table.column_names.index("label") + 1
    table = table.add_column(at, "label_id", pa.array(label_ids, pa.int32()))
    pq.write_table(table, context.work / "documents.parquet")
