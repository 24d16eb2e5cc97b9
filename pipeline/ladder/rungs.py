"""Every rung of the ladder: what it is, whose idea, how it is trained, and what its note reached.

S2 to S6 are public study notes that build models by hand, S2 on Human Numbers, S3 on the characters of a book, S4 on
short reviews, S5 on six sentences, S6 on surnames. Their architectures are kept, and in S2 their rates and batches.
LMModel3 to 6 are trained for twice the epochs of the note: written out anew, most of its runs came out below what it
printed (CHANGELOG.md). The schedules of S3 to S6 are ours. This module imports nothing heavy: help and errors list
the rungs.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from pipeline.errors import UsageError
from pipeline.settings import setting
from pipeline.training_settings import Phase, TrainingSettings

KNESER_NEY, AWD_LSTM = "kneser-ney", "AWD_LSTM"
TF_IDF, NB_SVM, ULMFIT = "TF-IDF", "NB-SVM", "ULMFiT"
Kind = Literal["language model", "classifier"]
LEAST_EPOCHS = 3
"""Of a classifier on however many documents."""


_READS: dict[str, Literal["words", "letters"]] = {
    "S2": "words", "S4": "words", "S3": "letters", "beside S3": "letters", "S6": "letters", "beside S6": "letters",
}
"""By the source of a rung."""


class RungSettings(TrainingSettings):
    """Sizes and training that all rungs with a gradient have; where the notes say nothing, fastai's defaults."""

    alpha: float = setting(0.0, "Activation regularization; only LMModel7 has it.", ge=0.0)
    beta: float = setting(0.0, "Temporal activation regularization; only LMModel7 has it.", ge=0.0)
    moms: tuple[float, float, float] = setting((0.95, 0.85, 0.95), "Momentum of one-cycle (fastai's plain Learner).")
    n_hid: int = setting(64, "Hidden size.", ge=1)
    output_p: float = setting(0.0, "Dropout before the last layer.", ge=0.0, lt=1.0)
    phases: tuple[Phase, ...] = setting((), "Cycles in order.")


class LanguageModelSettings(RungSettings):
    """How a language-model rung reads a text."""

    n_layers: int = setting(1, "Recurrent layers.", ge=1)
    stride: int | None = setting(
        None, "Windows of seq_len tokens begin this far apart and are read without memory; none: streams whose state "
        "goes on from batch to batch.", ge=1,
    )
    shuffle: bool = setting(False, "Windows come in another order in each epoch; S2 reads them in that of the text.")
    predicts: Literal["all", "last"] = setting("all", "Positions of a step whose next token is predicted.")
    shift: bool = setting(
        False, "Windows begin at another token in each epoch, so that all cuts of the text come in turn.",
        affects_output="unless default",
    )
    scored: Literal["as trained", "after windows"] = setting(
        "as trained", "Validation: the predictions of training, or every token once, after the whole window before it.",
        affects_output="unless default",
    )


class ClassifierSettings(RungSettings):
    """How a classifier rung reads a document; seq_len is the most that networks of a fixed length read of one."""

    emb_sz: int = setting(5, "Embedding size.", ge=1)
    class_weights: Literal["none", "balanced"] = setting("none", "As in train_classifier.")
    draws: Literal["documents", "classes"] = setting(
        "documents", "What an epoch reads: every document once, or as many, each drawn by class first and then within "
        "it (S6), so that all classes come equally often.", affects_output="unless default",
    )
    n_layers: int = setting(1, "Recurrent layers of char-lstm.", ge=1, affects_output="unless default")
    documents: int = setting(
        2430, "Training documents that the epochs of phases are meant for: those of the sentences.", ge=1,
        affects_output="unless default",
    )

    def for_documents(self, n: int) -> Self:
        """The same with fewer epochs if `n` training documents are more than they are meant for.

        So many that no fewer steps are made, and LEAST_EPOCHS at least: what learns from 2,430 sentences in 80 epochs
        would else read 22,500 reviews 80 times.
        """
        if n <= self.documents:
            return self
        phases = tuple(
            phase.model_copy(update={
                "epochs": min(phase.epochs, max(LEAST_EPOCHS, math.ceil(phase.epochs * self.documents / n)))
            })
            for phase in self.phases
        )
        return self.model_copy(update={"phases": phases})


@dataclass(frozen=True)
class Published:
    """A figure that a note reports, and how it came about."""

    metric: str
    value: float
    protocol: str


@dataclass(frozen=True)
class Rung:
    """One model of the ladder."""

    name: str
    kind: Kind
    about: str
    source: str
    """Whose model it is."""
    settings: LanguageModelSettings | ClassifierSettings | None = None
    """None: the rung is made by the stages of the run, or has no gradient."""
    published: Mapping[str, Published] = field(default_factory=dict)
    """By the kind of corpus (prepare_corpus.kind)."""

    @property
    def reads(self) -> Literal["words", "letters"] | None:
        """Tokens that it is made for; None: any."""
        return _READS.get(self.source)

    def same_for_every_seed(self, labelled: int | None) -> bool:
        """True if it draws no random number, and the seed draws none of the labels it looks at: `labelled` are so many,
        None: all."""
        return self.name in {KNESER_NEY, TF_IDF, NB_SVM} and (self.kind == "language model" or labelled is None)


def _one_cycle(epochs: int, lr: float) -> tuple[Phase, ...]:
    return (Phase(name="all", epochs=epochs, lr=lr),)


def _human_numbers(accuracy: float, epochs: int) -> dict[str, Published]:
    protocol = f"one run of {epochs} epochs, read off its table near the best of them; 20 % of the text to validate"
    return {"human-numbers": Published("accuracy", accuracy, protocol)}


def _nietzsche(loss: float, epochs: int) -> dict[str, Published]:
    """`loss` in nats."""
    protocol = (
        f"one run of {epochs} epochs, its last validation loss of {loss:g} nats in bits; kinder than ours: it "
        "validates on a random fifth of overlapping windows, whose characters training has read"
    )
    return {"nietzsche": Published("bits_per_character", round(loss / math.log(2), 2), protocol)}


def _sentences(accuracy: float) -> dict[str, Published]:
    protocol = "one run of 151 epochs, its last test accuracy; 2,700 sentences to train, 300 to test, none to validate"
    return {"sentences": Published("accuracy", accuracy, protocol)}


def _names(share: float, size: int) -> dict[str, Published]:
    protocol = (
        f"state of {size}, one run of 100,000 names; right of 100 held out. Both are drawn by language first, all "
        "languages alike, so the mean recall of ours is the figure beside it"
    )
    return {"names": Published("macro_recall", share, protocol)}


def _characters(
    seq_len: int, stride: int, predicts: Literal["all", "last"], *, epochs: int, lr: float, bs: int = 512,
    shift: bool = False, scored: Literal["as trained", "after windows"] = "as trained",
) -> LanguageModelSettings:
    return LanguageModelSettings(
        bs=bs, seq_len=seq_len, stride=stride, shuffle=True, predicts=predicts, n_hid=256, moms=(0.9, 0.85, 0.9),
        shift=shift, scored=scored, phases=_one_cycle(epochs, lr),
    )


_PADDED = 512
"""Tokens that classifiers of fixed length read of a document at most."""
_NAMES = 20_074
"""Documents that the epochs of character rungs are meant for: all surnames of S6."""

_LANGUAGE_MODELS = (
    Rung(KNESER_NEY, "language model", "counts of 2 to 5 words, smoothed", "Kneser and Ney 1995"),
    Rung(
        "LMModel1", "language model", "three words through one linear layer, unrolled", "S2",
        LanguageModelSettings(seq_len=3, stride=3, predicts="last", phases=_one_cycle(4, 1e-3)),
        _human_numbers(0.47, 4),
    ),
    Rung(
        "LMModel2", "language model", "the same as a loop", "S2",
        LanguageModelSettings(seq_len=3, stride=3, predicts="last", phases=_one_cycle(4, 1e-3)),
        _human_numbers(0.48, 4),
    ),
    Rung(
        "LMModel3", "language model", "the loop keeps its state from batch to batch", "S2",
        LanguageModelSettings(seq_len=3, predicts="last", phases=_one_cycle(20, 3e-3)),
        _human_numbers(0.61, 10),
    ),
    Rung(
        "LMModel4", "language model", "predicts after every word, 16 words a step", "S2",
        LanguageModelSettings(seq_len=16, phases=_one_cycle(30, 3e-3)), _human_numbers(0.66, 15),
    ),
    Rung(
        "LMModel5", "language model", "two layers of nn.RNN", "S2",
        LanguageModelSettings(seq_len=16, n_layers=2, phases=_one_cycle(30, 3e-3)), _human_numbers(0.55, 15),
    ),
    Rung(
        "LMModel6", "language model", "two layers of LSTM", "S2",
        LanguageModelSettings(seq_len=16, n_layers=2, phases=_one_cycle(30, 1e-2)), _human_numbers(0.78, 15),
    ),
    Rung(
        "LMModel7", "language model", "tied weights, dropout, AR and TAR", "S2",
        LanguageModelSettings(
            seq_len=16, n_layers=2, output_p=0.4, alpha=2.0, beta=1.0, moms=(0.8, 0.7, 0.8), wd=0.1,
            phases=_one_cycle(15, 1e-2),
        ),
        _human_numbers(0.82, 15),
    ),
    Rung(
        "Char3", "language model", "three characters, each added to the state, unrolled", "S3",
        _characters(3, 3, "last", epochs=2, lr=5e-3),
    ),
    Rung(
        "CharLoop", "language model", "the same as a loop over eight", "S3",
        _characters(8, 1, "last", epochs=2, lr=3e-3), _nietzsche(1.79123, 2),
    ),
    Rung(
        "CharLoopConcat", "language model", "state and character side by side, not added", "S3",
        _characters(8, 1, "last", epochs=2, lr=2e-3), _nietzsche(1.69335, 2),
    ),
    Rung(
        "CharRnn", "language model", "nn.RNN over eight characters", "S3",
        # With 1e-3 one-cycle ended at 2.363 bits, training and validation alike: too little was learned.
        _characters(8, 1, "last", epochs=4, lr=4e-3), _nietzsche(1.5452, 4),
    ),
    Rung(
        "CharSeqRnn", "language model", "nn.RNN, a prediction after each of eight", "S3",
        # An epoch has an eighth of the windows of CharRnn: smaller batches, more epochs, and other windows in each.
        _characters(8, 8, "all", epochs=12, lr=3e-3, bs=64, shift=True, scored="after windows"),
    ),
    Rung(
        "CharStatefulRnn", "language model", "the same, its state kept from batch to batch", "beside S3",
        LanguageModelSettings(
            bs=64, seq_len=8, n_hid=256, moms=(0.9, 0.85, 0.9), clip=1.0, phases=_one_cycle(10, 3e-3)
        ),
    ),
    Rung(AWD_LSTM, "language model", "this pipeline's language model, as the recipe says", "stage finetune_lm"),
)
_CLASSIFIERS = (
    Rung(
        "bag-of-words", "classifier", "logistic regression on counts of tokens", "S5",
        ClassifierSettings(bs=32, phases=_one_cycle(20, 1e-2)),
        {"bow-languages": Published("accuracy", 1.0, "100 epochs, two test sentences; not the same as ours")},
    ),
    Rung(TF_IDF, "classifier", "logistic regression on weighted 1- and 2-grams", "the baseline of every evaluation"),
    Rung(NB_SVM, "classifier", "linear SVM on 1- and 2-grams scaled by naive Bayes", "Wang and Manning 2012"),
    Rung(
        "n-gram-embeddings", "classifier", "mean of embedded tokens and hashed token pairs", "fastText, Joulin 2016",
        ClassifierSettings(bs=32, emb_sz=50, output_p=0.3, phases=_one_cycle(10, 1e-2)),
    ),
    Rung(
        "MLP", "classifier", "three layers on all embedded tokens of a padded document", "S4",
        ClassifierSettings(bs=32, seq_len=_PADDED, phases=_one_cycle(60, 3e-3)), _sentences(0.613),
    ),
    Rung(
        "CNN", "classifier", "four convolutions and two poolings over a padded document", "S4",
        # Its dropout keeps it at chance for some ten epochs; after 40 one seed of two was at 0.69 on validation.
        ClassifierSettings(bs=32, seq_len=_PADDED, phases=_one_cycle(80, 3e-3)), _sentences(0.713),
    ),
    Rung(
        "BiLSTM", "classifier", "an LSTM of 64 both ways over a document", "S4",
        ClassifierSettings(bs=32, seq_len=_PADDED, output_p=0.2, phases=_one_cycle(15, 5e-3)), _sentences(0.727),
    ),
    Rung(
        "char-rnn-linear", "classifier", "a recurrence without nonlinearity", "S6",
        ClassifierSettings(
            bs=64, seq_len=_PADDED, n_hid=32, class_weights="balanced", clip=1.0, documents=_NAMES,
            phases=_one_cycle(15, 3e-3),
        ),
        _names(0.55, 32),
    ),
    Rung(
        "char-rnn-relu", "classifier", "the same with a ReLU layer for what it reads", "S6",
        ClassifierSettings(
            bs=64, seq_len=_PADDED, n_hid=256, class_weights="balanced", clip=1.0, documents=_NAMES,
            phases=_one_cycle(15, 1e-3),
        ),
        _names(0.58, 256),
    ),
    Rung(
        "char-lstm", "classifier", "two layers of LSTM both ways, with dropout, classes drawn alike", "beside S6",
        ClassifierSettings(
            bs=64, seq_len=_PADDED, emb_sz=32, n_hid=96, n_layers=2, output_p=0.4, draws="classes",
            documents=_NAMES, phases=_one_cycle(12, 5e-3),
        ),
    ),
    Rung(ULMFIT, "classifier", "this pipeline's classifier, as the recipe says", "stages finetune_lm to evaluation"),
)
RUNGS = {rung.name: rung for rung in (*_LANGUAGE_MODELS, *_CLASSIFIERS)}
"""Bottom to top, language models first."""


def rungs_named(names: Sequence[str]) -> list[Rung]:
    """The rungs called `names`, in the ladder's order; UsageError suggests the nearest to one that is not there."""
    for name in names:
        if name not in RUNGS:
            near = difflib.get_close_matches(name, RUNGS, 1, 0.0)[0]
            raise UsageError(f"There is no rung {name!r}.", f"Did you mean {near!r}? Rungs: {', '.join(RUNGS)}.")
    return [rung for rung in RUNGS.values() if rung.name in names]
