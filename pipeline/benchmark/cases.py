"""What can be measured: the cases, the names they are asked for by, and the code of their sides."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.benchmark.sizes import VOCABULARIES
from pipeline.errors import UsageError

OURS, FASTAI, DISTILBERT, MATMUL = "ours", "fastai", "distilbert", "matmul"
Runner = Literal["sides", "startup", "scale"]


@dataclass(frozen=True)
class Case:
    """One line of the result. `sides` and `prepare` name functions as module:function, imported by children only."""

    name: str
    unit: str
    """Of both figures. A rate ends in /s: more is better; ms and s: less is better."""
    summary: str
    family: str = ""
    """Another name by which it is asked for, together with its siblings."""
    runner: Runner = "sides"
    sides: dict[str, str] = field(default_factory=dict)
    prepare: str = ""
    """Makes the data that the sides read."""
    shared: str = ""
    """Folder of that data; made once for all cases that name it."""
    parameters: dict[str, Any] = field(default_factory=dict)
    same_work: bool = True
    """Both sides must count the same units in a repeat."""
    alike: bool = False
    """Ours imports fastai too, so both may start from one process that has imported it."""
    reads_source: bool = False
    """Uses the archive where one is given."""

    def answers_to(self, name: str) -> bool:
        """True if `name` asks for this case."""
        return name in (self.name, self.family)


def _side(module: str, function: str) -> str:
    return f"pipeline.benchmark.{module}:{function}"


def _beside_fastai(ours: str, fastai: str, function: str) -> dict[str, str]:
    return {OURS: _side(ours, function), FASTAI: _side(fastai, function)}


_REVIEWS: dict[str, Any] = {
    "prepare": _side("text_data", "prepare_reviews"), "shared": "reviews", "reads_source": True,
}
_CLASSIFIERS: dict[str, Any] = {"prepare": _side("model_data", "prepare_classifiers"), "shared": "classifiers"}
_MATMUL = {MATMUL: _side("matmul", "measure")}


def _language_model(name: str) -> Case:
    return Case(
        name, "tokens/s", f"A training step of the language model, AWD_LSTM 400/1152/3, {VOCABULARIES[name]:,} words, "
        "64 x 72 tokens (--quick: 16 x 72).", "lm-step",
        sides={**_beside_fastai("training_ours", "training_fastai", "language_model"), **_MATMUL},
        prepare=_side("model_data", "prepare_ids"), shared=f"ids-{name}", parameters={"vocabulary": name},
        alike=True,
    )


def _single(name: str, model: str, one_core: bool, summary: str) -> Case:
    return Case(
        name, "ms", summary, "predict-one", sides=_beside_fastai("inference_ours", "inference_fastai", "one"),
        parameters={"model": model, "one_core": one_core}, **_CLASSIFIERS,
    )


CASES: tuple[Case, ...] = (
    Case("archive", "documents/s", "A .tar.gz to a sealed corpus; fastai: unpack it and read the files.",
         sides=_beside_fastai("text_ours", "text_fastai", "archive"), prepare=_side("text_data", "prepare_archive"),
         shared="archive", reads_source=True),
    Case("tokenize", "tokens/s", "A corpus to sealed ids of words; fastai: tokenize_folder and Numericalize.",
         sides=_beside_fastai("text_ours", "text_fastai", "tokenize"), **_REVIEWS),
    Case("subword", "documents/s", "The same with SentencePiece, its training included.",
         sides=_beside_fastai("text_ours", "text_fastai", "subword"), **_REVIEWS),
    Case("lm-loader", "tokens/s", "An epoch of language-model batches, as for lm-step; fastai: from ids in memory.",
         sides=_beside_fastai("training_ours", "training_fastai", "loader"),
         prepare=_side("model_data", "prepare_loader_ids"), shared="ids-lm-loader", alike=True),
    _language_model("lm-step-60k"),
    _language_model("lm-step-8k"),
    Case("classifier-step", "documents/s", "Training the classifier, all layers, on reviews of IMDB's median length.",
         sides={**_beside_fastai("training_ours", "training_fastai", "classifier"),
                DISTILBERT: _side("distilbert", "train"), **_MATMUL},
         alike=True, **_CLASSIFIERS),
    Case("predict", "documents/s", "Ids to probabilities, batch by batch; fastai: get_preds.",
         sides={**_beside_fastai("inference_ours", "inference_fastai", "batches"),
                DISTILBERT: _side("distilbert", "predict")},
         **_CLASSIFIERS),
    _single("predict-one", "classifier", False, "One review of 200 words, text to class, in int8; fastai: predict."),
    _single("predict-one-5m", "small-classifier", True, "The same, 5 million LSTM weights, on one core."),
    Case("startup-help", "s", "--help, from the shell.", "startup", "startup", parameters={"arguments": ["--help"]}),
    Case("startup-status", "s", "status, from the shell.", "startup", "startup",
         parameters={"arguments": ["status", "--recipe", "smoke"]}),
    *(
        Case(f"scale-{stage}", "s", f"{stage} on 1, 4 and 16 copies of the reviews; the figure is that of 16.", "scale",
             "scale", parameters={"stage": stage}, prepare=_side("text_data", "prepare_copies"), shared="copies",
             reads_source=True)
        for stage in ("prepare", "tokenize", "numericalize")
    ),
)
NAMES = tuple(dict.fromkeys(case.family or case.name for case in CASES))
"""What can be asked for; the cases of a family can also be asked for one by one."""


def select(names: Sequence[str]) -> tuple[Case, ...]:
    """The cases that `names` ask for, all without names; UsageError for a name that there is not."""
    known = dict.fromkeys([*NAMES, *(case.name for case in CASES)])
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"There is no benchmark {name!r}.", f"{meant}Benchmarks: {', '.join(NAMES)}.")
    return tuple(case for case in CASES if not names or any(case.answers_to(name) for name in names))
