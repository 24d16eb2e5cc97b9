"""Every setting of every stage, told once: its type, default, meaning, unit and source.

Recipes are validated against these definitions, `--help` and the README tables are generated from them, and the
settings that affect the output enter a stage's fingerprint.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


def setting(default: Any, meaning: str, *, affects_output: bool = True, **constraints: Any) -> Any:
    """A setting: `meaning` is its help text. `affects_output=False` keeps it out of the fingerprint."""
    return Field(default, description=meaning, json_schema_extra={"affects_output": affects_output}, **constraints)


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A recipe section; unknown keys are refused, and "none" stands for no value."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _none_unsets(cls, values: Any) -> Any:
        """TOML has no null: "none" unsets a setting that can be unset."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {name: None if value == "none" and name in optional else value for name, value in values.items()}

    def affecting_output(self) -> dict[str, Any]:
        """The settings that enter the fingerprint, as JSON-ready values."""
        kept = {
            name
            for name, field in type(self).model_fields.items()
            if not isinstance(field.json_schema_extra, dict) or field.json_schema_extra.get("affects_output", True)
        }
        return self.model_dump(mode="json", include=kept)


class RunSettings(Section):
    """What all stages of a run share."""

    seed: int = setting(42, "Seed of every random choice: splits, data order, weights, dropout.", ge=0)
    direction: Literal["fwd", "bwd"] = setting("fwd", "Reading direction of the language model and classifier.")
    precision: Literal["auto", "fp16", "bf16", "fp32"] = setting(
        "auto", "Training arithmetic; auto is fp16 on CUDA, bf16 on a CPU that has it in hardware, else fp32."
    )
    device: str = setting(
        "auto", "auto (CUDA if there is one, else cpu), cpu, cuda or cuda:N.", affects_output=False,
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    allow_fp16_on_cpu: bool = setting(
        False, "Let fp16 run on a CPU: slow, only to try fp16 scripts where there is no GPU.", affects_output=False
    )


class InputSettings(Section):
    """Sealed artifacts to use instead of making them in this run (their stages are then not run)."""

    corpus: str | None = setting(None, "Folder of a sealed corpus.", affects_output=False)
    tokens: str | None = setting(None, "Folder of sealed tokens.", affects_output=False)
    ids: str | None = setting(None, "Folder of sealed ids.", affects_output=False)
    lm: str | None = setting(None, "Folder of a sealed language model for train_classifier.", affects_output=False)
    classifier: str | None = setting(None, "Folder of a sealed classifier to evaluate.", affects_output=False)
    start_lm: str | None = setting(
        None,
        "Folder of an earlier sealed language model to start from; its architecture is kept, and its tokenizer and "
        "vocabulary unless finetune_lm.vocabulary is match.",
        affects_output=False,
    )


class PrepareCorpusSettings(Section):
    """Where the documents come from and how they are split."""

    kind: Literal["rotten-tomatoes", "imdb", "folder", "table", "plain-text", "human-numbers"] = setting(
        "rotten-tomatoes",
        "Reader: rotten-tomatoes (the sample), imdb (archive or folder), folder (split/label/*.txt), table (.csv, "
        ".jsonl, .parquet), plain-text (language model only), human-numbers (generated).",
    )
    source: str | None = setting(
        None, "Local file or folder to read instead of downloading; its content, not its path, is what counts.",
        affects_output=False,
    )
    sha256: str | None = setting(
        None, "Expected SHA-256 of the source file; anything else is refused.", pattern=r"^[0-9a-f]{64}$"
    )
    text_column: str = setting("text", "Table column that holds the text.")
    label_column: str | None = setting("label", "Table column that holds the label; empty values are unlabelled text.")
    split_column: str | None = setting(None, "Table column that holds train, valid, test or unlabelled.")
    id_column: str | None = setting(None, "Table column that identifies a document; default: the row number.")
    group_column: str | None = setting(None, "Table column whose values must not be on both sides of a split.")
    valid_fraction: Fraction = setting(
        0.1, "Share of train held out for validation when the source has no valid split (stratified, seeded)."
    )
    test_fraction: Fraction = setting(
        0.2, "Share held out for test when the source has no test split; not used for plain text."
    )
    limit_per_split: Count | None = setting(
        None, "Keep this many documents of each split of the source (seeded, same number per label)."
    )


class TokenizeCorpusSettings(Section):
    """How text becomes tokens."""

    tokenizer: Literal["word", "subword", "char"] = setting(
        "word", "word (fastai rules, then blank spaCy), subword (SentencePiece) or char."
    )
    rules: Literal["fastai", "none"] = setting(
        "fastai", "Text rules before the tokenizer: fastai's (xxmaj, xxrep, ...; lower case) or none."
    )
    normalize: Literal["none", "NFC", "NFKC"] = setting(
        "none", "Unicode normal form that text is brought to before the rules; none is fastai's way."
    )
    language: str = setting("en", "spaCy language code of the word tokenizer.", pattern=r"^[a-z]{2,3}$")
    model_type: Literal["unigram", "bpe"] = setting("unigram", "SentencePiece model of the subword tokenizer.")
    vocab_size: int = setting(8000, "Pieces of the subword tokenizer.", ge=16)
    character_coverage: float = setting(
        0.99999, "Share of the training characters the pieces must cover (fastai's value for European languages).",
        gt=0.0, le=1.0,
    )
    workers: int = setting(
        0, "Processes; 0 is one per core that the job may use, or one for a small corpus. The result is the same for "
        "any number.", affects_output=False, ge=0,
    )


class NumericalizeCorpusSettings(Section):
    """Which tokens get an id."""

    min_freq: Count = setting(3, "A token seen less often in training text becomes xxunk (fastai's default).")
    max_vocab: int = setting(60000, "Largest vocabulary, special tokens included (fastai's default).", ge=10)


class Phase(Section):
    """One cycle of training; each ends in a checkpoint."""

    name: str = setting(..., "Name in logs, history and checkpoints.", pattern=r"^[a-z0-9][a-z0-9-]*$")
    epochs: Count = setting(1, "Passes over the training text.")
    lr: float = setting(..., "Highest learning rate, of the last layer group.", gt=0.0)
    lr_lowest: float | None = setting(
        None, "Highest learning rate of the first layer group, spaced geometrically up to lr; default: lr for all.",
        gt=0.0,
    )
    patience: Count | None = setting(
        None, "End the phase after this many epochs in a row without a better validation loss (finetune_lm) or "
        "accuracy (train_classifier; a lower loss decides a tie); default: never.",
    )
    train_last: Count | None = setting(None, "Train only the last this many layer groups; default: all.")
    schedule: Literal["one-cycle", "flat-cosine", "slanted-triangular"] = setting(
        "one-cycle",
        "Course of the rate: one-cycle (fastai's fit_one_cycle), flat-cosine (fit_flat_cos: flat, then falling) or "
        "slanted-triangular (ULMFiT sec. 3.2: up in a line, then down in a longer one).",
    )
    pct_start: float | None = setting(
        None, "Share of the cycle before the rate falls; default: fastai's, 0.25 of one-cycle, 0.75 of flat-cosine.",
        gt=0.0, lt=1.0,
    )
    div: float = setting(25.0, "one-cycle starts at lr / div (fastai's default).", ge=1.0)
    div_final: float = setting(1e5, "one-cycle and flat-cosine end at lr / div_final (fastai's default).", ge=1.0)
    cut_frac: float = setting(
        0.1, "Share of slanted-triangular in which the rate rises (ULMFiT sec. 3.2).", gt=0.0, lt=1.0
    )
    ratio: float = setting(32.0, "slanted-triangular starts and ends at lr / ratio (ULMFiT sec. 3.2).", ge=1.0)

    @model_validator(mode="after")
    def _only_what_its_schedule_uses(self) -> "Phase":
        """A setting that would do nothing is a mistake."""
        for name in ("pct_start", "div", "div_final", "cut_frac", "ratio"):
            if name not in _USED_BY[self.schedule] and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"phase {self.name}: {name} does nothing in a {self.schedule} schedule")
        return self


_USED_BY = {
    "one-cycle": ("pct_start", "div", "div_final"), "flat-cosine": ("pct_start", "div_final"),
    "slanted-triangular": ("cut_frac", "ratio"),
}
"""What shapes each schedule."""


class TrainingSettings(Section):
    """What both training stages share."""

    drop_mult: float = setting(1.0, "Factor on every dropout probability.", ge=0.0)
    bs: Count = setting(64, "Batch size: rows per step.")
    accumulate: Count = setting(
        1, "Batches per step of the optimizer: they give the gradient of one batch of accumulate * bs rows, in the "
        "memory of one of bs (batch norm in the classifier's head sees bs rows).",
    )
    seq_len: int = setting(72, "Tokens per step of truncated backpropagation through time.", ge=2)
    wd: float = setting(0.01, "Decoupled weight decay (fastai's default).", ge=0.0)
    clip: float | None = setting(None, "Largest norm of the gradient; default: no clipping.", gt=0.0)
    moms: tuple[Probability, Probability, Probability] = setting(
        (0.8, 0.7, 0.8),
        "Momentum at the start, the top and the end of one-cycle (fastai's for text); other schedules hold the second, "
        "which is ULMFiT's too.",
    )
    alpha: float = setting(2.0, "Activation regularization, AR (AWD-LSTM sec. 4.3, fastai's default).", ge=0.0)
    beta: float = setting(1.0, "Temporal activation regularization, TAR (AWD-LSTM sec. 4.3, fastai's default).", ge=0.0)
    average_epochs: Count = setting(
        1, "Seal the equal mean of the weights at the end of this many last epochs of the stage; 1: no mean. A "
        "classifier's mean has to beat its best epoch on validation.",
    )
    log_every: Count = setting(50, "Steps between two lines of the log without a terminal.", affects_output=False)
    checkpoint_steps: Count | None = setting(
        500, "Steps between two checkpoints inside an epoch; each epoch ends with one anyway.", affects_output=False
    )
    checkpoint_minutes: float | None = setting(
        10.0, "Longest time between two checkpoints, validation included.", affects_output=False, gt=0.0
    )
    keep_checkpoints: int = setting(2, "Checkpoints kept while the stage is not sealed.", affects_output=False, ge=2)
    max_skipped: Count = setting(
        25, "Steps in a row that may be skipped for NaN or infinity; one more ends the stage (exit 5).",
        affects_output=False,
    )

    @model_validator(mode="after")
    def _averages_epochs_there_are(self) -> "TrainingSettings":
        n_epochs = sum(phase.epochs for phase in getattr(self, "phases", ()))
        if self.average_epochs > max(n_epochs, 1):
            raise ValueError(f"average_epochs is {self.average_epochs}, but the phases have {n_epochs} epochs together")
        return self

    @model_validator(mode="after")
    def _dropout_below_one(self) -> "TrainingSettings":
        for name in type(self).model_fields:
            if name.endswith("_p") and getattr(self, name) * self.drop_mult >= 1.0:
                raise ValueError(f"{name} times drop_mult is {getattr(self, name) * self.drop_mult:g}, not below 1")
        return self


class FinetuneLMSettings(TrainingSettings):
    """The AWD_LSTM language model and how it is trained."""

    emb_sz: Count = setting(400, "Embedding size (fastai's AWD_LSTM).")
    n_hid: Count = setting(1152, "Hidden size of the inner LSTM layers (fastai's AWD_LSTM).")
    n_layers: Count = setting(3, "LSTM layers (fastai's AWD_LSTM).")
    output_p: Probability = setting(0.1, "Dropout before the decoder (fastai's default).")
    hidden_p: Probability = setting(0.15, "Dropout between layers (fastai's default).")
    input_p: Probability = setting(0.25, "Dropout of the embedded input (fastai's default).")
    embed_p: Probability = setting(0.02, "Dropout of whole words of the embedding (fastai's default).")
    weight_p: Probability = setting(0.2, "Dropout of hidden-to-hidden weights (fastai's default).")
    random_seq_len: bool = setting(
        False, "Steps of random length: normal around seq_len, 5 % around half of it, standard deviation 5, the rate "
        "scaled by length / seq_len (AWD-LSTM sec. 5).",
    )
    tie_weights: bool = setting(True, "Decoder and embedding share one weight matrix.")
    vocabulary: Literal["inherit", "match"] = setting(
        "inherit", "With inputs.start_lm: inherit (its tokenizer and vocabulary) or match (the run's own; a token "
        "takes the row of the same token, a piece those of the words it is part of, others the mean row).",
    )
    transductive: bool = setting(
        False, "Let the language model read the test split's text (the published protocol); every report then says so."
    )
    phases: tuple[Phase, ...] = setting(
        (Phase(name="frozen", lr=2e-2, train_last=1), Phase(name="unfrozen", epochs=5, lr=2e-3)),
        "Cycles in order; the default repeats the notebook: one frozen epoch, then all layers.", min_length=1,
    )


class TrainClassifierSettings(TrainingSettings):
    """The classifier on top of the language model's encoder and how it is trained."""

    drop_mult: float = setting(0.5, "Factor on every dropout probability (fastai's default).", ge=0.0)
    output_p: Probability = setting(0.4, "Dropout of the pooled encoder output (fastai's default).")
    hidden_p: Probability = setting(0.3, "Dropout between layers (fastai's default).")
    input_p: Probability = setting(0.4, "Dropout of the embedded input (fastai's default).")
    embed_p: Probability = setting(0.05, "Dropout of whole words of the embedding (fastai's default).")
    weight_p: Probability = setting(0.5, "Dropout of hidden-to-hidden weights (fastai's default).")
    lin_ftrs: tuple[Count, ...] = setting((50,), "Sizes of the hidden layers of the head (fastai's default).")
    head_p: Probability = setting(0.1, "Dropout before the later layers of the head (fastai's default).")
    validate_on: Literal["valid", "test"] = setting(
        "valid", "Split that chooses the epoch. test is the published protocol: valid is then trained on too; every "
        "report says so.",
    )
    labelled: int | None = setting(
        None, "Look at this many labels only, drawn by run.seed, evenly; train and valid share them as they are.", ge=4
    )
    encoder: Literal["pretrained", "random"] = setting(
        "pretrained", "Start with the language model's weights or, to see what they are worth, with random ones."
    )
    max_len: Count = setting(1440, "Pooling sees the last max_len tokens of a document (fastai's 72 * 20).")
    class_weights: Literal["none", "balanced"] = setting(
        "none", "balanced weighs each class by the inverse of its frequency in train."
    )
    lm_loss_weight: float = setting(
        0.0, "Weight of an auxiliary language-model loss on the classifier's documents, with the language model's "
        "decoder (Chronopoulou et al. 2019, where the weight decays; here it stays); 0: none.", ge=0.0,
    )
    label_smoothing: Probability = setting(0.0, "Share of the target spread evenly over all classes.")
    phases: tuple[Phase, ...] = setting(
        (
            Phase(name="head", lr=2e-2, train_last=1),
            Phase(name="last-two", lr=1e-2, lr_lowest=1e-2 / 2.6**4, train_last=2),
            Phase(name="last-three", lr=5e-3, lr_lowest=5e-3 / 2.6**4, train_last=3),
            Phase(name="all", epochs=2, lr=1e-3, lr_lowest=1e-3 / 2.6**4),
        ),
        "Cycles in order; the default is gradual unfreezing as published (ULMFiT sec. 3.3).", min_length=1,
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainClassifierSettings":
        if self.max_len < self.seq_len:
            raise ValueError(f"max_len is {self.max_len}, less than one chunk of seq_len {self.seq_len}")
        if self.encoder == "random" and self.lm_loss_weight:
            raise ValueError("encoder is random, but lm_loss_weight brings in the language model's decoder")
        return self


class EvaluateClassifierSettings(Section):
    """How the test split is scored."""

    bs: Count = setting(64, "Documents per batch.", affects_output=False)
    bootstrap_samples: int = setting(2000, "Resamples behind the 95 % interval of the accuracy.", ge=100)
    calibration_bins: Count = setting(15, "Equal-width bins of the expected calibration error.")
    baseline: bool = setting(True, "Also fit TF-IDF (1- and 2-grams) and logistic regression on the same split.")


class EvaluateEnsembleSettings(Section):
    """Which classifiers are averaged, and how their ensemble is scored."""

    members: tuple[str, ...] = setting(
        (), "Variants whose classifiers are averaged once all are evaluated, two at least; default: no ensemble.",
        affects_output=False,
    )
    bootstrap_samples: int = setting(2000, "Resamples behind the 95 % interval of the accuracy.", ge=100)
    calibration_bins: Count = setting(15, "Equal-width bins of the expected calibration error.")


class PublishedSettings(Section):
    """What others reached on the same data, printed beside the run's own result."""

    accuracy: float | None = setting(
        None, "Published accuracy on the test split, 0 to 1.", affects_output=False, ge=0.0, le=1.0
    )
    source: str | None = setting(None, "Where it was published, and how it was reached.", affects_output=False)

    @model_validator(mode="after")
    def _has_a_source(self) -> "PublishedSettings":
        if self.accuracy is not None and not self.source:
            raise ValueError("accuracy is given without its source")
        return self
