"""The settings of the two training stages; `settings` has those of the others, and what all have in common."""

from typing import Literal

from pydantic import model_validator

from pipeline.settings import Count, Probability, Section, setting


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
        "accuracy (train_classifier; a lower loss decides a tie); default: never. finetune_lm with "
        "patience seals the best epoch, not the last.",
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
            if name.endswith("_p") and name != "head_p" and getattr(self, name) * self.drop_mult >= 1.0:
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
    unlabelled: bool = setting(
        True, "Also learn from the unlabelled split; false: from the training split alone.",
        affects_output="unless default",
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

    drop_mult: float = setting(0.5, "Factor on every dropout probability but head_p (fastai's default).", ge=0.0)
    bs: int = setting(64, "Batch size: rows per step; batch norm in the head needs two.", ge=2)
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
    adversarial: float = setting(
        0.0, "Adversarial training, in phases that train all layers: each step also learns from its documents with "
        "their embeddings moved by this share of their norm, the way that misleads the classifier most (Miyato et al. "
        "2017; twice the time); 0: none.",
        ge=0.0, affects_output="unless default",
    )
    virtual_adversarial: float = setting(
        0.0, "The same without labels: each step also learns to keep its mind about bs texts of train and unlabelled "
        "whose embeddings are moved so far (three to four times the time). For few labels; 0: none.",
        ge=0.0, affects_output="unless default",
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
