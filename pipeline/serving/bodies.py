"""Bodies of requests and answers: the one definition that checks them and that the OpenAPI document is made from."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.inference.explanation import Method
from pipeline.serving.limits import (
    MAX_CHARACTERS,
    MAX_NEW_TOKENS,
    MAX_PROMPT_CHARACTERS,
    MAX_SAMPLES,
    MAX_TEXTS,
)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer as JSON Schema means it: 3.0 is one."""
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class Asked(BaseModel):
    """What every request's body has in common: nothing is converted, nothing unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class PredictBody(Asked):
    """Texts to classify."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: str | None = Field(None, description="Name of a classifier, see GET /models. Default: the first.")


class ExplainBody(Asked):
    """A text whose words are to be weighed."""

    text: Text
    model: str | None = Field(None, description="Name of a classifier, see GET /models. Default: the first.")
    label: str | None = Field(None, description="The class that words speak for or against. Default: the predicted.")
    method: Method = Field("gradient", description="gradient: input x gradient. occlusion: leaving each word out.")


class GenerateBody(Asked):
    """A prompt to continue."""

    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] = ""
    max_tokens: Whole = Field(100, ge=1, le=MAX_NEW_TOKENS)
    samples: Whole = Field(1, ge=1, le=MAX_SAMPLES)
    temperature: float = Field(0.75, ge=0, le=10, description="0: always the most probable token.")
    top_k: Whole = Field(0, ge=0, le=2**31 - 1, description="0: off.")
    top_p: float = Field(1.0, gt=0, le=1, description="1: off.")
    min_p: float = Field(0.0, ge=0, le=1, description="0: off.")
    repetition_penalty: float = Field(1.0, ge=0.1, le=10, description="1: off.")
    seed: Whole = Field(42, ge=0, le=2**53 - 1)


class Prediction(BaseModel):
    """The class of one text."""

    label: str
    probability: float
    probabilities: dict[str, float]


class PredictAnswer(BaseModel):
    """One prediction per text, in their order."""

    model: str
    predictions: list[Prediction]


class WordAnswer(BaseModel):
    """A word and its contribution."""

    text: str
    value: float | None = Field(description="Above 0 the word speaks for the class. null: the text is too long.")
    glued: bool = Field(description="No space between it and the word before it.")


class ExplainAnswer(BaseModel):
    """A text's class and the contribution of its words to `explained`."""

    model: str
    label: str
    probabilities: dict[str, float]
    explained: str
    method: str
    words: list[WordAnswer]


class SampleAnswer(BaseModel):
    """One continuation."""

    text: str = Field(description="Prompt and continuation.")
    written: str = Field(description="The continuation alone.")
    ended: Literal["document", "max_tokens"] = Field(description="Why it is complete.")


class GenerateAnswer(BaseModel):
    """Continuations of the prompt."""

    model: str
    samples: list[SampleAnswer]


class ClassifierAnswer(BaseModel):
    """A classifier that is served."""

    name: str
    labels: list[str]
    direction: Literal["fwd", "bwd"]
    device: str
    precision: str


class LanguageModelAnswer(BaseModel):
    """The language model that is served."""

    name: str
    direction: Literal["fwd", "bwd"]


class ModelsAnswer(BaseModel):
    """Everything that is served; the first classifier is the default."""

    classifiers: list[ClassifierAnswer]
    language_model: LanguageModelAnswer | None


class HealthAnswer(BaseModel):
    """The server can answer."""

    status: Literal["ok"]


class ErrorAnswer(BaseModel):
    """What was wrong."""

    error: str
