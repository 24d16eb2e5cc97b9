"""The subword tokenizer: SentencePiece pieces of the text after the rules."""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from pipeline.errors import DataError, InputError
from pipeline.text.encoding import EncodedBatch, by_first_appearance
from pipeline.text.rules import (
    BOS,
    FLD,
    MAJ,
    REP,
    SPACE,
    SPECIAL_TOKENS,
    UNK,
    UP,
    WREP,
    apply_rules,
    cut_long_chunks,
    normalized,
    prepare,
    resolve,
)

MODEL_FILE = "spm.model"
WHOLE_PIECES = (UNK, FLD, REP, WREP, UP, MAJ)
"""Special tokens that texts hold after the rules; each stays one piece."""
N_THREADS = 8
"""Of training, on any machine: the threads share out the text, so their number shapes the model."""
LOG_ERRORS_ONLY = 2
_RESERVED = "\u2585"
"""SentencePiece's own stand-in for unknown characters; it leaves out every sentence that holds one."""
_MEND = "Restore it from a copy, or run tokenize_corpus again with --force."


@dataclass(frozen=True)
class TrainingShare:
    """How much of the training text SentencePiece was given: documents and bytes (white space aside), 0 to 1."""

    documents: float
    bytes: float


class SubwordTokenizer:
    """Pieces of a SentencePiece model; xxbos first, special tokens as bare tokens, unknown characters as xxunk."""

    kind = "subword"
    splitter = None

    def __init__(self, model: bytes, rules: str = "fastai", normalize: str = "none") -> None:
        self.rules, self.normalize, self._model = rules, normalize, model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        whole = {SPACE + token: token for token in WHOLE_PIECES}
        pieces = [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]
        pieces[self._processor.unk_id()] = UNK
        self._names = [whole.get(piece, piece) for piece in pieces]
        numbers: dict[str, int] = {BOS: 0}
        self._number = np.array([numbers.setdefault(name, len(numbers)) for name in self._names], dtype=np.int64)
        self._types = list(numbers)

    @property
    def n_pieces(self) -> int:
        """Pieces of the model."""
        return len(self._names)

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text, xxbos first."""
        ruled = apply_to(text, self.rules, self.normalize)
        return [BOS, *(self._names[i] for i in self._processor.encode(ruled, out_type=int))]

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Types and ids of many texts; the same tokens as `tokenize` gives."""
        parts: list[Any] = []
        for text in texts:
            pieces = self._processor.encode(apply_to(text, self.rules, self.normalize), out_type=int)
            parts.append(np.append(0, self._number[np.asarray(pieces, dtype=np.int64)]))
        ids = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        distinct, local = by_first_appearance(ids, len(self._types))
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        return EncodedBatch([self._types[i] for i in distinct], local, lengths)

    def join(self, pieces: EncodedBatch) -> EncodedBatch:
        """`pieces` as they are: `encode` leaves nothing to do."""
        return pieces

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Readable text; special tokens carried out."""
        text = "".join(f" {t} " if t in SPECIAL_TOKENS else t.replace(SPACE, " ") for t in tokens)
        return " ".join(resolve(text.split()))

    def describe(self) -> dict[str, Any]:
        """What tokenizer.json says beside kind and rules."""
        return {"model": MODEL_FILE, "pieces": self.n_pieces, "sha256": hashlib.sha256(self._model).hexdigest()}

    def save_model(self, folder: Path) -> None:
        """Write the SentencePiece model."""
        (folder / MODEL_FILE).write_bytes(self._model)


def apply_to(text: str, rules: str, normalize: str = "none") -> str:
    """`text` as SentencePiece sees it, in training and ever after.

    By itself SentencePiece brings text to its own kind of NFKC, as it does in fastai, which also makes one space of any
    white space. With NFC it is told to leave text alone, so that is done here.
    """
    ruled = apply_rules(prepare(text, normalize)) if rules == "fastai" else normalized(text, normalize)
    return " ".join(ruled.split()) if normalize == "NFC" else ruled


def train_subword(
    texts: Iterable[str], rules: str, model_type: str, vocab_size: int, character_coverage: float, *,
    normalize: str = "none",
) -> tuple[SubwordTokenizer, TrainingShare]:
    """Train SentencePiece on all of `texts`.

    It gets words with their counts, not documents: no document is too long for its limit of 4,192 bytes, none is
    left out, and time and memory depend on the number of distinct words only.

    Raises DataError if `vocab_size` is too large or too small for the text; it names the nearest that fits.
    """
    words: Counter[str] = Counter()
    n_documents = n_reached = n_bytes = 0
    for text in texts:
        ruled = apply_to(text, rules, normalize)
        n_bytes += sum(len(word.encode()) for word in ruled.split())
        found = cut_long_chunks(ruled.replace(_RESERVED, " ")).split()
        words.update(found)
        n_documents += not (ruled == "" or ruled.isspace())
        n_reached += bool(found)
    if not words:
        raise DataError("The training text holds no words, so no subword tokenizer can be trained on it.")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_counted(words), input_format="tsv", model_writer=written, model_type=model_type,
            vocab_size=vocab_size, character_coverage=character_coverage, num_threads=N_THREADS,
            user_defined_symbols=[SPACE + token for token in WHOLE_PIECES],
            normalization_rule_name="identity" if normalize == "NFC" else "nmt_nfkc",
            unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, input_sentence_size=0, minloglevel=LOG_ERRORS_ONLY,
        )
    except RuntimeError as error:
        raise _explained(error, vocab_size, model_type) from error
    reached = sum(len(word.encode()) * count for word, count in words.items())
    share = TrainingShare(n_reached / n_documents if n_documents else 0.0, reached / n_bytes)
    return SubwordTokenizer(written.getvalue(), rules, normalize), share


def load_subword(folder: Path, rules: str, sha256: str, normalize: str = "none") -> SubwordTokenizer:
    """The tokenizer whose model lies in `folder`; InputError if that is not the one with this SHA-256.

    SentencePiece has no checksum of its own: with one bit changed, two models of three load and cut words otherwise.
    """
    path = folder / MODEL_FILE
    try:
        model = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", _MEND) from error
    found = hashlib.sha256(model).hexdigest()
    if found != sha256:
        raise InputError(
            f"{path} is damaged or another model: SHA-256 {found[:12]}, tokenizer.json says {sha256[:12]!r}.", _MEND
        )
    try:
        return SubwordTokenizer(model, rules, normalize)
    except (RuntimeError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no SentencePiece model: {str(error).splitlines()[0]}.", _MEND) from error


def _counted(words: Counter[str]) -> Iterator[str]:
    """Lines `word<TAB>count`, words at most MAX_CHUNK_CHARS long.

    The unigram trainer seeks its first candidates among strings that stand on two lines at least, so a word seen
    twice gets two.
    """
    for word in sorted(words):
        count = words[word]
        if count > 1:
            yield f"{word}\t{count - count // 2}"
            yield f"{word}\t{count // 2}"
        else:
            yield f"{word}\t1"


def _explained(error: RuntimeError, vocab_size: int, model_type: str) -> Exception:
    """SentencePiece's complaint about the vocabulary size as a DataError; any other as it is."""
    largest = re.search(r"Vocabulary size too high .*?<= (\d+)", str(error))
    smallest = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if largest:
        return DataError(
            f"tokenize_corpus.vocab_size {vocab_size} is too large for this text: SentencePiece ({model_type}) "
            f"finds at most {largest[1]} pieces.",
            f"Give --set tokenize_corpus.vocab_size={largest[1]} or less, or more text.",
        )
    if smallest:
        return DataError(
            f"tokenize_corpus.vocab_size {vocab_size} is too small for this text: its characters and the special "
            f"tokens alone need {smallest[1]} pieces.",
            f"Give --set tokenize_corpus.vocab_size={smallest[1]} or more, or a lower "
            "tokenize_corpus.character_coverage.",
        )
    return error


