"""The `generate` command: its options, and the samples as text or JSON."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import machine, stopping
from pipeline.errors import Stopped
from pipeline.options import DeviceOption, HomeOption, PrecisionOption
from pipeline.pretrained import DEFAULT_MODEL
from pipeline.progress import Reporter, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.inference.generate import Sample, Sampling
    from pipeline.inference.language_model import LanguageModelBundle


def command(  # noqa: PLR0917
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What is continued. Default: a new document.")] = "",
    model: Annotated[
        str, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed language model, or the run that has one. One "
                          "that reads backwards writes what comes before the prompt.")
    ] = DEFAULT_MODEL,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Below 1 bolder, above 1 more various; 0 is greedy.")
    ] = 0.75,
    top_k: Annotated[int, typer.Option("--top-k", help="Of the K most probable tokens only. 0: of all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Of the fewest tokens that are this probable together. 1: of all.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option("--min-p", help="Of tokens at least this times as probable as the best one. 0: of all.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="Above 1: tokens that were there before become rarer.")
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Length of a sample at most.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another text.")] = 42,
    n_samples: Annotated[int, typer.Option("--samples", help="How many continuations.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help='One object {"model", "prompt", "sampling", "samples": [{"text", "written", '
                           '"n_tokens", "ended"}]}; ended is document, max_tokens or stopped.')
    ] = False,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "auto",
    stop_after: Annotated[
        float | None, typer.Option("--stop-after", metavar="MINUTES", min=0.0, help="Stop (exit 75) after this many "
                                   "minutes; what was written until then is printed.")
    ] = None,
    home: HomeOption = Path(),
) -> None:
    """Continue a text with a sealed language model. The same seed gives the same text."""
    from pipeline.inference.generate import Sampling, generate
    from pipeline.inference.language_model import load_language_model_bundle
    from pipeline.inference.models import find_model, run_settings

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, max_tokens, seed)
    reporter = Reporter()
    bundle = load_language_model_bundle(find_model(model, home, ("lm",)), run_settings(precision, device))
    reporter.line(f"generate: {bundle.path}, {bundle.direction}, {bundle.device.describe()}")
    stopping.forget()
    stopping.stop_after(stop_after)
    samples: list[Sample] = []
    try:
        with machine.limits_told("generate", "a lower --samples"), stopping.signals_ask(reporter):
            for step in _written(generate(bundle, prompt, sampling, n_samples), max_tokens, reporter):
                samples = step
    except Stopped as error:
        raise Stopped(error.what, "What was written until then is printed.") from error
    finally:
        if samples:
            print(_json(bundle, sampling, samples) if as_json else _text(samples))


def _written(steps: "Iterator[list[Sample]]", max_tokens: int, reporter: Reporter) -> "Iterator[list[Sample]]":
    """The samples after each of `steps`, told in the log; Stopped between two of them if that was asked for."""
    started, samples = time.monotonic(), []
    with reporter.task("generate", max_tokens, "tokens") as task:
        for samples in steps:
            task.advance()
            yield samples
            if any(sample.ended is None for sample in samples):
                stopping.check("generate")
    elapsed, n_tokens = time.monotonic() - started, sum(len(sample.tokens) for sample in samples)
    prompt = samples[0].prompt
    if prompt.unknown:
        reporter.line(f"generate: {prompt.unknown} of {len(prompt.tokens)} tokens of the prompt are unknown to it")
    reporter.line(f"generate: {n_tokens:,} tokens in {elapsed:.1f} s, {n_tokens / elapsed:,.0f}/s")


def _text(samples: "list[Sample]") -> str:
    """Samples as people read them, with a line between them if there are several."""
    texts = [printable(sample.text) for sample in samples]
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"--- {number}\n{text}" for number, text in enumerate(texts, 1))


def _json(bundle: "LanguageModelBundle", sampling: "Sampling", samples: "list[Sample]") -> str:
    rows: list[dict[str, Any]] = [
        {"text": sample.text, "written": sample.written, "n_tokens": len(sample.tokens),
         "ended": sample.ended or "stopped"}
        for sample in samples
    ]
    found = {"model": str(bundle.path), "prompt": samples[0].prompt.text, "sampling": asdict(sampling), "samples": rows}
    return json.dumps(found, ensure_ascii=False, indent=2)
