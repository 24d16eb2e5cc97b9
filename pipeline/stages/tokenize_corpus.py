"""Stage 2: every document of the corpus as tokens, each distinct token stored once.

Reads `documents.parquet` and `labels.json` of a corpus; writes `type_ids.bin`, `offsets.npy`, `types.parquet`,
`documents.parquet`, `labels.json` and `tokenizer/`. The result is the same, byte by byte, for any number of workers.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import stopping
from pipeline.artifact import hash_folder
from pipeline.corpus.documents import SPLITS
from pipeline.errors import DataError
from pipeline.lock import in_turn
from pipeline.making import StageOutcome
from pipeline.settings import TokenizeCorpusSettings
from pipeline.stage import StageContext
from pipeline.storage import sync_tree, write_durably
from pipeline.text.arrays import append_array, save_array
from pipeline.text.encoding import EncodedBatch
from pipeline.text.shards import make_shards, tokenize_shards
from pipeline.text.tokenizer import TOKENIZER_FILE, Tokenizer, load_tokenizer, save_tokenizer

TRAINING_SPLITS = ("train", "unlabelled")


def run(context: StageContext) -> StageOutcome:
    """Make or inherit the tokenizer, then tokenize all documents.

    Raises DataError if the corpus holds no document or no subword tokenizer of the wanted size can be trained.
    """
    corpus = context.inputs["corpus"]
    documents = corpus.file("documents.parquet")
    table = pq.read_table(documents, columns=["doc_id", "split", "label", "n_chars"])
    if table.num_rows == 0:
        raise DataError(f"{corpus.path} holds no document.", "Give a source with text in it to prepare_corpus.")
    kept = context.kept  # once: a job that makes a share may come meanwhile
    tokenizer, folder, metrics = _prepare_tokenizer(context, documents, kept)
    identity = hash_folder(folder)
    shards = kept / f"pieces-{identity[:16]}"
    shards.mkdir(exist_ok=True)

    splits = _split_numbers(table)
    tokens = _TokenWriter(splits)
    with (
        (context.work / "type_ids.bin").open("wb") as stream,
        context.reporter.task("tokenizing", table.num_rows, "documents") as task,
    ):
        for batch in tokenize_shards(
            documents, tokenizer, folder, shards, workers=context.settings.workers, reporter=context.reporter
        ):
            tokens.add(batch, stream)
            task.advance(len(batch.lengths), f"{len(tokens.types):,} types")

    n_tokens = np.concatenate(tokens.lengths)
    save_array(context.work / "offsets.npy", np.concatenate([[0], np.cumsum(n_tokens)]).astype(np.int64))
    _write_types(context.work / "types.parquet", tokens)
    table = table.append_column("n_tokens", pa.array(n_tokens, pa.int32()))
    pq.write_table(table, context.work / "documents.parquet")
    shutil.copyfile(corpus.file("labels.json"), context.work / "labels.json")
    per_split = {name: int(n_tokens[splits == number].sum()) for number, name in enumerate(SPLITS)}
    n_chars = int(np.asarray(table["n_chars"], dtype=np.int64).sum())
    metrics |= {
        "documents": table.num_rows,
        "tokens": per_split,
        "types": len(tokens.types),
        "characters_per_token": round(n_chars / int(n_tokens.sum()), 4),
    }
    context.reporter.line(
        f"tokenize_corpus: {table.num_rows:,} documents, {int(n_tokens.sum()):,} tokens, {len(tokens.types):,} types"
    )
    return StageOutcome(metrics, {"corpus": corpus.manifest.fingerprint, "tokenizer": identity})


def run_share(context: StageContext, number: int, of: int) -> None:
    """Tokenize the row groups of share `number` of `of`; the first job to come trains the pieces.

    Raises DataError as `run` does.
    """
    assert context.parts is not None
    documents = context.inputs["corpus"].file("documents.parquet")
    where = f"tokenize_corpus, share {number}/{of},"
    with in_turn(context.parts / ".tokenizer.lock", lambda: stopping.check(where)):
        tokenizer, folder, _ = _prepare_tokenizer(context, documents, context.parts)
    shards = context.parts / f"pieces-{hash_folder(folder)[:16]}"
    shards.mkdir(exist_ok=True)
    with pq.ParquetFile(documents) as file:
        row_groups = range(number - 1, file.metadata.num_row_groups, of)
    with context.reporter.task("tokenizing", len(row_groups), "row groups") as task:
        for _ in make_shards(
            documents, tokenizer, folder, shards, row_groups=row_groups, workers=context.settings.workers
        ):
            task.advance()
            stopping.check(where)


def _prepare_tokenizer(
    context: StageContext, documents: Path, kept: Path
) -> tuple[Tokenizer, Path, dict[str, Any]]:
    """The tokenizer, its folder in the artifact, and what its training has to report; trained pieces stay in `kept`."""
    folder = context.work / "tokenizer"
    settings: TokenizeCorpusSettings = context.settings
    if "start_lm" in context.inputs:
        lm = context.inputs["start_lm"]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(lm.file(f"tokenizer/{TOKENIZER_FILE}").parent, folder)
        tokenizer = load_tokenizer(folder)
        context.reporter.line(
            f"tokenize_corpus: tokenizer inherited from {lm.path} ({tokenizer.kind}, rules {tokenizer.rules}); the "
            "recipe's tokenizer settings are not used"
        )
        return tokenizer, folder, {"tokenizer": tokenizer.kind}
    if settings.tokenizer == "subword":
        return _prepare_subword(context, settings, folder, documents, kept)
    if settings.tokenizer == "word":
        from pipeline.text.word import WordTokenizer

        tokenizer = WordTokenizer(settings.language, settings.rules, settings.normalize)
    else:
        from pipeline.text.char import CharTokenizer

        tokenizer = CharTokenizer(settings.rules, settings.normalize)
    save_tokenizer(tokenizer, folder)
    return tokenizer, folder, {"tokenizer": settings.tokenizer}


def _prepare_subword(
    context: StageContext, settings: TokenizeCorpusSettings, folder: Path, documents: Path, kept: Path
) -> tuple[Tokenizer, Path, dict[str, Any]]:
    from pipeline.text.subword import train_subword

    trained, pieces = kept / "subword.json", kept / "subword"
    if trained.exists():
        earlier = json.loads(trained.read_text(encoding="utf-8"))
        if pieces.exists() and hash_folder(pieces) == earlier["identity"]:
            context.reporter.line("tokenize_corpus: the pieces were trained before, by an earlier job")
            shutil.copytree(pieces, folder)
            return load_tokenizer(folder), folder, earlier["metrics"]
    context.reporter.line(f"tokenize_corpus: training {settings.vocab_size:,} {settings.model_type} pieces")
    tokenizer, share = train_subword(
        _training_texts(documents), settings.rules, settings.model_type, settings.vocab_size,
        settings.character_coverage, normalize=settings.normalize,
    )
    save_tokenizer(tokenizer, folder)
    context.reporter.line(
        f"tokenize_corpus: {share.documents:.2%} of the training documents and {share.bytes:.2%} of their bytes "
        "reached SentencePiece"
    )
    training_share = {"documents": share.documents, "bytes": share.bytes}
    metrics = {"tokenizer": "subword", "pieces": tokenizer.n_pieces, "training_share": training_share}
    shutil.rmtree(pieces, ignore_errors=True)
    shutil.copytree(folder, pieces)
    sync_tree(pieces)
    write_durably(trained, json.dumps({"identity": hash_folder(folder), "metrics": metrics}))
    return tokenizer, folder, metrics


def _training_texts(documents: Path) -> Iterator[str]:
    with pq.ParquetFile(documents) as file:
        for batch in file.iter_batches(250, columns=["split", "text"]):
            stopping.check("tokenize_corpus, before its pieces were trained,")
            for split, text in zip(batch["split"].to_pylist(), batch["text"].to_pylist(), strict=True):
                if split in TRAINING_SPLITS:
                    yield text


def _split_numbers(table: pa.Table) -> npt.NDArray[np.int8]:
    number = {name: i for i, name in enumerate(SPLITS)}
    return np.array([number[name] for name in table["split"].to_pylist()], dtype=np.int8)


class _TokenWriter:
    """Gives each token its number in the corpus, by first appearance, and counts it per split."""

    def __init__(self, splits: npt.NDArray[np.int8]) -> None:
        self._splits = splits
        self._n_documents = 0
        self.types: dict[str, int] = {}
        self.counts = np.zeros((len(SPLITS), 1024), dtype=np.int64)
        self.lengths: list[npt.NDArray[np.int64]] = []

    def add(self, batch: EncodedBatch, stream: BinaryIO) -> None:
        """Append the documents of `batch` to `stream`."""
        types = self.types
        number = np.array([types.setdefault(token, len(types)) for token in batch.types], dtype="<u4")
        append_array(stream, number[batch.ids])
        if len(types) > self.counts.shape[1]:
            self.counts = np.pad(self.counts, ((0, 0), (0, max(len(types), self.counts.shape[1]))))
        end = self._n_documents + len(batch.lengths)
        split_of_token = np.repeat(self._splits[self._n_documents : end], batch.lengths)
        for split in np.unique(split_of_token):
            local = np.bincount(batch.ids[split_of_token == split], minlength=len(number))
            self.counts[split, number] += local
        self.lengths.append(batch.lengths)
        self._n_documents = end


def _write_types(path: Path, tokens: _TokenWriter) -> None:
    columns: dict[str, Any] = {"token": pa.array(list(tokens.types), pa.string())}
    for number, name in enumerate(SPLITS):
        columns[name] = pa.array(tokens.counts[number, : len(tokens.types)], pa.int64())
    pq.write_table(pa.table(columns), path)
