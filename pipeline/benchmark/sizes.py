"""How much each case does: for the record, in a hurry, and for tests."""

from dataclasses import dataclass, field

WORD_LSTM = (400, 1152, 3)
"""Embedding size, hidden size and layers of fastai's AWD_LSTM."""
SMALL_LSTM = (400, 704, 2)
"""4.9 million LSTM weights."""


@dataclass(frozen=True)
class Sizes:
    """Counts of documents, tokens and steps; `lstm` and `small_lstm` are (emb_sz, n_hid, n_layers)."""

    repeats: int
    archive_documents: int
    """Generated, or the first of the archive that is given: to unpack all its 100,000 takes fastai half a minute."""
    documents: int
    """To tokenize into words; the corpus has row groups of 2,000 at most, each of which is one worker's."""
    subword_documents: int
    pieces: int
    loader_tokens: int
    lm_bs: int
    lm_seq_len: int
    lm_warm_steps: int
    """Before the first repeat: the first step allocates, the second one starts from a hidden state."""
    vocabularies: dict[str, int]
    """Of the language-model cases, by their name."""
    classifier_bs: int
    training_batches: int
    prediction_batches: int
    distilbert_share: int
    """DistilBERT reads every so many-th of the documents, from the longest to the shortest: it is the slowest. 0: it
    is left out."""
    singles: int
    """Predictions of single reviews in one repeat."""
    single_words: int
    scale_documents: int
    scale_repeats: int
    matmul_size: int
    forks: bool = False
    """Fork processes from one that has imported fastai, but for sides that do without it: seconds for each. Where the
    two sides of a case then start differently, their memory is not told."""
    lstm: tuple[int, int, int] = WORD_LSTM
    small_lstm: tuple[int, int, int] = SMALL_LSTM
    distilbert: dict[str, int] = field(default_factory=dict)
    """Sizes other than the usual ones; only tests have them."""


VOCABULARIES = {"lm-step-60k": 60_000, "lm-step-8k": 8_000}
FULL = Sizes(
    repeats=5, archive_documents=25_000, documents=25_000, subword_documents=3_000, pieces=8_000,
    loader_tokens=3_000_000, lm_bs=64, lm_seq_len=72, lm_warm_steps=2, vocabularies=VOCABULARIES, classifier_bs=64,
    training_batches=1, prediction_batches=2, distilbert_share=4, singles=10, single_words=200, scale_documents=2_000,
    scale_repeats=2, matmul_size=2048,
)
QUICK = Sizes(
    repeats=2, archive_documents=10_000, documents=2_500, subword_documents=400, pieces=2_000, loader_tokens=500_000,
    lm_bs=16, lm_seq_len=72, lm_warm_steps=1, vocabularies=VOCABULARIES, classifier_bs=8, training_batches=1,
    prediction_batches=2, distilbert_share=0, singles=3, single_words=200, scale_documents=250, scale_repeats=1,
    matmul_size=2048, forks=True,
)
TINY = Sizes(
    repeats=2, archive_documents=60, documents=40, subword_documents=200, pieces=300, loader_tokens=4_000, lm_bs=4,
    lm_seq_len=10, lm_warm_steps=1, vocabularies={"lm-step-60k": 400, "lm-step-8k": 200}, classifier_bs=4,
    training_batches=2, prediction_batches=2, distilbert_share=2, singles=2, single_words=20, scale_documents=30,
    scale_repeats=1, matmul_size=64, forks=True, lstm=(8, 12, 2), small_lstm=(6, 8, 2),
    distilbert={"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 400},
)
NAMED = {"full": FULL, "quick": QUICK, "tiny": TINY}
