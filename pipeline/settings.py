"""Every setting of every stage, told once: its type, default, meaning, unit and source.

Recipes are validated against these definitions, `--help` and the README tables are generated from them, and the
settings that affect the output enter a stage's fingerprint.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator


def setting(
    default: Any, meaning: str, *, affects_output: bool | Literal["unless default"] = True, **constraints: Any
) -> Any:
    """A setting: `meaning` is its help text. `affects_output=False` keeps it out of the fingerprint.

    "unless default" keeps it out while it has its default, so that a new setting leaves what is sealed as it is.
    """
    return Field(default, description=meaning, json_schema_extra={"affects_output": affects_output}, **constraints)


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
MAX_PIECES = 1_000_000_000
"""SentencePiece counts a tenth more than it is asked for, in 32 bits; beyond them it ends the whole process."""


class Section(BaseModel):
    """A recipe section; unknown keys are refused, and "none" stands for no value."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

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
        kept = set()
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            affects = extra.get("affects_output", True)
            if affects and (affects != "unless default" or getattr(self, name) != field.default):
                kept.add(name)
        return self.model_dump(mode="json", include=kept)


class RunSettings(Section):
    """What all stages of a run share."""

    seed: int = setting(42, "Seed of every random choice: splits, data order, weights, dropout.", ge=0,
                        le=2**63 - 1)
    direction: Literal["fwd", "bwd"] = setting("fwd", "Reading direction of the language model and classifier.")
    precision: Literal["auto", "fp16", "bf16", "fp32"] = setting(
        "auto", "Training arithmetic; auto is fp16 on CUDA, bf16 on a CPU that has it in hardware, else fp32."
    )
    device: str = setting(
        "auto", "auto (CUDA if there is one, else cpu), cpu, cuda or cuda:N.", affects_output=False,
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    rank_timeout_s: float = setting(
        60.0, "Of several processes that train together: seconds that one may not answer inside a step before the "
        "others end (exit 75).", affects_output=False, gt=0.0,
    )
    allow_fp16_on_cpu: bool = setting(
        False, "Let fp16 run on a CPU: slow, only to try fp16 scripts where there is no GPU.", affects_output=False
    )


class PredictionSettings(RunSettings):
    """The same for a classifier that is only used."""

    precision: Literal["auto", "fp16", "bf16", "fp32", "int8"] = setting(  # type: ignore[assignment]
        "auto", "As in training; int8 rounds the LSTM weights to 8 bits, on a CPU, where all else is as in auto."
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
    start_classifier: str | None = setting(
        None,
        "Folder of an earlier sealed classifier for train_classifier to start from, in place of the language model's "
        "encoder; its head too where it tells the same labels apart. It has to share tokenizer and vocabulary.",
        affects_output=False,
    )


GENERATED_KINDS = ("human-numbers", "bow-languages")
"""Kinds of corpus that need no source."""
RUNNING_TEXT_KINDS = ("plain-text", "nietzsche")
"""Kinds that are one text without labels."""


class PrepareCorpusSettings(Section):
    """Where the documents come from and how they are split."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # columns may be called 0 and 1

    kind: Literal[
        "rotten-tomatoes", "imdb", "folder", "table", "plain-text", "human-numbers", "nietzsche", "sentences", "names",
        "bow-languages",
    ] = setting(
        "rotten-tomatoes",
        "Reader: rotten-tomatoes (the sample), imdb (archive or folder), folder (split/label/*.txt), table (.csv, "
        ".jsonl, .parquet, or a folder of them), plain-text (language model only), human-numbers and bow-languages "
        "(generated), nietzsche (the published text file), sentences and names (published archive or folder).",
    )
    source: str | None = setting(
        None, "Local file or folder to read instead of downloading; its content, not its path, is what counts.",
        affects_output=False,
    )
    offline: bool = setting(
        False, "Fetch nothing: what would be downloaded has to be here already.", affects_output=False
    )
    sha256: str | None = setting(
        None, "Expected SHA-256 of the source file; anything else is refused.", pattern=r"^[0-9a-f]{64}$"
    )
    text_column: str = setting("text", "Table column that holds the text.")
    label_column: str | None = setting("label", "Table column that holds the label; empty values are unlabelled text.")
    split_column: str | None = setting(None, "Table column that holds train, valid, test or unlabelled.")
    splits_from_names: bool | None = setting(
        None, "Of a folder of tables without split_column: true takes the split of each from its name or folder "
        "(train.csv, test-0.parquet, valid/a.jsonl), false puts all together; such names are refused without it.",
        affects_output="unless default",
    )
    id_column: str | None = setting(
        None, "Table column that identifies a document; default: the row number, of a folder after the table's name."
    )
    group_column: str | None = setting(None, "Table column whose values must not be on both sides of a split.")
    valid_fraction: Fraction = setting(
        0.1, "Share of train held out for validation when the source has no valid split (stratified, seeded)."
    )
    test_fraction: Fraction = setting(
        0.2, "Share held out for test when the source has no test split; not used for plain text."
    )
    test_documents: Count | None = setting(
        None, "Hold out about this many for test instead of test_fraction, the same number per label; equal texts stay "
        "together.",
        affects_output="unless default",
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
    vocab_size: int = setting(8000, "Pieces of the subword tokenizer.", ge=16, le=MAX_PIECES)
    character_coverage: float = setting(
        0.99999, "Share of the training characters the pieces must cover (fastai's value for European languages); "
        "SentencePiece takes none below 0.98.", ge=0.98, le=1.0,
    )
    workers: int = setting(
        0, "Processes; 0 is one per core that the job may use, or one for a small corpus. The result is the same for "
        "any number.", affects_output=False, ge=0,
    )


class NumericalizeCorpusSettings(Section):
    """Which tokens get an id."""

    min_freq: Count = setting(3, "A token seen less often in training text becomes xxunk (fastai's default).")
    max_vocab: int = setting(60000, "Largest vocabulary, special tokens included (fastai's default).", ge=10)


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


JOB_KINDS = ("cpu", "gpu")


class JobSettings(Section):
    """What a batch job asks for; what is left out is the cluster's default."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # time = 90, memory = 16000

    partition: str | None = setting(None, "Partition (sbatch --partition).")
    account: str | None = setting(None, "Account that is charged (sbatch --account).")
    time: str | None = setting(
        None, "Longest time, as MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS; a stage that is stopped by it goes on in "
        "the next turn.", pattern=r"^[0-9]+(-[0-9]+)?(:[0-9]{2}){0,2}$",
    )
    cpus: Count | None = setting(None, "Processors (sbatch --cpus-per-task).")
    memory: str | None = setting(None, "Memory, such as 16G (sbatch --mem).",
                                 pattern=r"^[0-9]+[KMGT]?$")
    gpus: int | None = setting(None, "GPUs of the node (sbatch --gres=gpu:N).", ge=1)
    processes: Count = setting(
        1, "Processes on each node that train together, one per GPU; cpus are then those of each. Only for stages that "
        "train."
    )
    nodes: Count = setting(1, "Nodes with so many processes each. Only for stages that train.")
    options: tuple[str, ...] = setting((), "More options of sbatch, each as on its command line.")


class SlurmSettings(Section):
    """How `submit` makes batch jobs of the stages; none of it shapes an artifact."""

    setup: tuple[str, ...] = setting(
        (), "Shell lines before each stage, such as \"module load cuda\" or \"source .venv/bin/activate\"; with them "
        "the jobs call the python that they find.",
    )
    warn_s: int = setting(
        300, "Seconds before the end of its time at which a stage is asked to save and stop.",
        ge=10,
    )
    restarts: int = setting(
        20, "How often a stopped stage is put into the queue again, at most.", ge=0
    )
    prepare_shards: Count = setting(
        1, "Jobs that read a folder of tables at once, each its share (`prepare_corpus --shard`)."
    )
    shards: Count = setting(
        1, "Jobs that tokenize the corpus at once, each its share (`tokenize_corpus --shard`)."
    )
    jobs: dict[str, JobSettings] = setting(
        {}, "What is asked for: [slurm.jobs.cpu] for stages that train nothing, [slurm.jobs.gpu] for those that train "
        "or predict, [slurm.jobs.STAGE] for one stage, over these.",
    )

    @model_validator(mode="before")
    @classmethod
    def _both_kinds(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(jobs := values.get("jobs", {}), dict):
            values = {**values, "jobs": {**{kind: {} for kind in JOB_KINDS}, **jobs}}
        return values

    @field_serializer("jobs")
    def _only_what_is_given(self, jobs: dict[str, JobSettings]) -> dict[str, dict[str, Any]]:
        """What a stage's job leaves out is that of its kind: written out, the default would stand over it."""
        return {name: job.model_dump(mode="json", exclude_unset=True) for name, job in jobs.items()}
