"""Why a classifier decided as it did about one text: every word with its contribution to one class."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.inference import attribution, occlusion
from pipeline.inference.attribution import Word, attribute, word_groups, words
from pipeline.inference.bundle import ClassifierBundle
from pipeline.inference.occlusion import occlude

Method = Literal["gradient", "occlusion"]
METHODS: dict[Method, str] = {"gradient": attribution.METHOD, "occlusion": occlusion.METHOD}
"""What each method computes, in words."""
STRONGEST_WORDS = 5


@dataclass(frozen=True)
class Explanation:
    """A text's class and what spoke for or against it."""

    label: str
    """The predicted one."""
    probabilities: dict[str, float]
    explained: str
    """The class that the words speak for (above 0) or against (below 0)."""
    method: Method
    words: list[Word]
    """In order; NaN where the document is too long for the method."""

    def strongest(self) -> list[Word]:
        """The words, not the punctuation, that contributed most, either way."""
        speaking = [w for w in self.words if w.value and not isnan(w.value) and any(c.isalnum() for c in w.text)]
        return sorted(speaking, key=lambda word: -abs(word.value))[:STRONGEST_WORDS]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; a word without a number has null."""
        return {
            "label": self.label, "probabilities": self.probabilities, "explained": self.explained,
            "method": METHODS[self.method],
            "words": [
                {"text": word.text, "value": None if isnan(word.value) else word.value, "glued": word.glued}
                for word in self.words
            ],
        }


def explain(
    bundle: ClassifierBundle, text: str | bytes, method: Method = "gradient", label: str | None = None,
    between_steps: Callable[[], None] = lambda: None,
) -> Explanation:
    """Contribution of every word of a text to the log-odds of `label`; None: of the predicted class.

    `between_steps` may end the work by an exception. Raises UsageError for a label that the classifier does not know.
    """
    if label is not None and label not in bundle.labels:
        raise UsageError(
            f"{bundle.path} has no class {label!r}.", f"It has: {', '.join(map(repr, bundle.labels))}."
        )
    tokens, ids = bundle.text.read(text)
    (probabilities,) = bundle.probabilities([ids], between_steps=between_steps)
    predicted = bundle.labels[int(probabilities.argmax())]
    class_id = bundle.labels.index(label or predicted)
    if method == "gradient":
        values = attribute(bundle.classifier, ids, class_id, between_steps=between_steps)
    else:
        groups = word_groups(bundle.text.tokenizer, tokens)
        values = occlude(bundle.classifier, ids, class_id, groups, between_steps=between_steps)
    return Explanation(
        predicted, dict(zip(bundle.labels, probabilities.tolist(), strict=True)), bundle.labels[class_id], method,
        words(bundle.text.tokenizer, tokens, values.tolist()),
    )
