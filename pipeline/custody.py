"""The chain of custody: hashes that tie tokens, ids, language model and classifier together.

A stage's inputs are compared by what their manifests say, before anything heavy is imported; every refusal names both
sides and the command that mends it.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from pipeline.artifact import Artifact
from pipeline.errors import InputError

Command = Callable[..., str]
"""`Run.command`: the command line of a run with other arguments."""
Key = Literal["tokenizer", "vocabulary"]

_SAME: dict[str, tuple[tuple[str, str, tuple[Key, ...]], ...]] = {
    "numericalize_corpus": (("tokens", "start_lm", ("tokenizer",)),),
    "finetune_lm": (("ids", "start_lm", ("tokenizer", "vocabulary")),),
    "train_classifier": (
        ("ids", "lm", ("tokenizer", "vocabulary")), ("ids", "start_classifier", ("tokenizer", "vocabulary")),
    ),
    "evaluate_classifier": (("ids", "classifier", ("tokenizer", "vocabulary")),),
}
"""For each stage: two inputs and what they must share."""
_MODELS = {
    "finetune_lm": ("start_lm",), "train_classifier": ("lm", "start_classifier"),
    "evaluate_classifier": ("classifier",),
}
"""The inputs of each stage that read in a direction."""
_ANEW = ("--set", "inputs.tokens=none", "--set", "inputs.ids=none")
"""Has tokens and ids made, though the run may have been given some."""


def check_inputs(
    stage: str, inputs: Mapping[str, Artifact], direction: str, command: Command, *, matched: bool = False
) -> None:
    """InputError if two inputs of a stage do not belong together, or if one reads in another direction than the run.

    `matched`: the vocabulary of a language model to start from need not be that of the ids; then their tokenizers must
    cut text alike, so that equal tokens mean the same.
    """
    if stage == "finetune_lm" and matched and "start_lm" in inputs:
        _check_alike(inputs["ids"], inputs["start_lm"], command)
    for one, other, keys in _SAME.get(stage, ()):
        if one in inputs and other in inputs and not (matched and other == "start_lm"):
            for key in keys:
                _check_same(stage, key, inputs[one], inputs[other], command)
    if stage == "evaluate_ensemble":
        _check_members(list(inputs.values()))
    if stage == "evaluate_classifier":
        _check_text(inputs["corpus"], inputs["ids"], command)
    for model in (inputs[slot] for slot in _MODELS.get(stage, ()) if slot in inputs):
        found = model.manifest.identity.get("direction")
        if found != direction:
            raise InputError(
                f"{model.path} reads {found}, this run reads {direction}.",
                f"Read in its direction: {command('run', '--run', 'NAME', '--set', f'run.direction={found}')}",
            )


def has_other_corpora(corpus: str | None, models: Iterable[Artifact]) -> bool:
    """True if one of `models` has read another corpus than `corpus`, or does not say which: test text, perhaps."""
    return any(
        model.manifest.identity.get("corpus") != corpus or model.manifest.metrics.get("other_corpora", False)
        for model in models
    )


def _check_same(stage: str, key: Key, text: Artifact, model: Artifact, command: Command) -> None:
    mine, theirs = text.manifest.identity.get(key), model.manifest.identity.get(key)
    if mine != theirs:
        start = f"inputs.start_lm={model.path}"
        if model.manifest.slot == "lm":
            mend = f"Make tokens and ids with its own: {command('run', '--run', 'NAME', '--set', start, *_ANEW)}"
            if stage == "finetune_lm":
                match = command("run", "--set", "finetune_lm.vocabulary=match")
                mend += f" (or keep these and match its rows by token: {match})"
        elif stage == "train_classifier":
            without = command("run", "--set", "inputs.start_classifier=none")
            mend = f"Make tokens and ids with a language model of its own, or start from the run's: {without}"
        else:
            train = command("run", "--run", "NAME", "--set", "inputs.classifier=none")
            mend = f"Train a classifier on these ids: {train}"
        raise InputError(
            f"The {key} of {text.path} ({_short(mine)}) is not that of {model.path} ({_short(theirs)}).", mend
        )


def _check_alike(text: Artifact, model: Artifact, command: Command) -> None:
    mine, theirs = _tokenizer_of(text), _tokenizer_of(model)
    for key in ("kind", "rules", "normalize"):
        if key == "kind" and (theirs.get(key), mine.get(key)) == ("word", "subword"):
            continue  # pieces start from the words they are parts of
        here, there = mine.get(key, "none"), theirs.get(key, "none")
        if here != there:
            setting = {"kind": "tokenizer"}.get(key, key)
            alike = command("run", "--run", "NAME", *_ANEW, "--set", f"tokenize_corpus.{setting}={there}")
            raise InputError(
                f"The tokenizer of {text.path} has {key} {here}, that of {model.path} {there}: "
                "equal tokens would not mean the same.",
                f"Cut the text alike: {alike}",
            )


def _tokenizer_of(artifact: Artifact) -> dict[str, Any]:
    """What tokenizer.json says. Read here, not by `pipeline.text`: planning must not import tokenizers."""
    description: dict[str, Any] = json.loads(artifact.file("tokenizer/tokenizer.json").read_text(encoding="utf-8"))
    return description


def _check_text(corpus: Artifact, ids: Artifact, command: Command) -> None:
    made_from = ids.manifest.identity.get("corpus")
    if made_from != corpus.manifest.fingerprint:
        models = ("--set", "inputs.lm=none", "--set", "inputs.classifier=none")
        raise InputError(
            f"{ids.path} was made from corpus {_short(made_from)}, {corpus.path} is "
            f"{_short(corpus.manifest.fingerprint)}.",
            f"Make all that follows of this corpus: {command('run', '--run', 'NAME', *_ANEW, *models)}",
        )


def _check_members(evaluations: Sequence[Artifact]) -> None:
    """Members vote on the same documents, each once."""
    first, seen = evaluations[0], dict[str, Artifact]()
    for one in evaluations:
        theirs, ours = one.manifest.identity.get("corpus"), first.manifest.identity.get("corpus")
        if theirs is None:
            raise InputError(
                f"{one.path} does not say which corpus it was scored on.",
                "Evaluate again with this version: python -m pipeline evaluate_classifier --run NAME --force",
            )
        if theirs != ours:
            raise InputError(
                f"{one.path} was scored on corpus {_short(theirs)}, {first.path} on {_short(ours)}.",
                "Make the members on one corpus, in the command of each: --set "
                f"{shlex.quote('inputs.corpus=' + first.manifest.inputs['corpus'].path)}",
            )
        reads, read = (a.manifest.metrics.get("protocol", "honest") for a in (one, first))
        if reads != read:
            raise InputError(
                f"{one.path} was made under the {reads} protocol, {first.path} under the {read} one.",
                f"Make all members under one: python -m pipeline run --run NAME --protocol {read}",
            )
        twin = seen.setdefault(one.manifest.fingerprint, one)
        if twin is not one:
            raise InputError(
                f"{one.path} and {twin.path} are the same evaluation ({_short(one.manifest.fingerprint)}).",
                "Name each member once.",
            )


def _short(value: str | None) -> str:
    return value[:12] if value else "none"
