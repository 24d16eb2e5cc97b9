"""Options of the `export` command."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.errors import UsageError
from pipeline.options import HomeOption
from pipeline.progress import Reporter

Form = Literal["fastai", "onnx", "huggingface"]


def command(  # noqa: PLR0917
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the files go.")],
    to: Annotated[Form, typer.Option("--to", help="Whose files to write.")] = "fastai",
    classifier: Annotated[
        Path | None, typer.Option("--classifier", metavar="FOLDER", help="A sealed classifier (onnx, huggingface).")
    ] = None,
    lm: Annotated[
        Path | None, typer.Option("--lm", metavar="FOLDER", help="A sealed language model (fastai, huggingface).")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Or the run that has one, or the model that ships: "
                                 "its language model for fastai, its classifier for the others.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="fastai: of NAME.pth and the two files beside it. Default: lm_fwd or "
                                 "lm_bwd. huggingface: of the model, in its card. Default: the folder it lies in.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="onnx: also write a model with 8-bit weights.")] = False,
    texts: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="onnx: texts to compare with (.txt, .csv, .jsonl, "
                                  ".parquet). Default: labelled documents of the run.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option("--text-column", metavar="NAME", help="onnx: column of --input that holds the text. "
                                 "Default: text.")
    ] = None,
    split: Annotated[
        Literal["valid", "test"] | None, typer.Option("--split", help="onnx: which of the run's. Default: valid; "
                                                      "nothing is chosen by what is compared.")
    ] = None,
    documents: Annotated[
        int | None, typer.Option("--documents", metavar="N", min=1, help="onnx: compare at most so many. "
                                 "Default: 1000.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", metavar="FOLDER", help="huggingface: of the classifier. Default: the "
                                  "one beside it.")
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="huggingface: such as apache-2.0. Default: unknown.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", metavar="CODE", help="huggingface: such as en. Default: that of a word "
                                 "tokenizer.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
    home: HomeOption = Path(),
) -> None:
    """Write a sealed model in a form that others read: fastai, ONNX with a parity report, or the Hugging Face Hub."""
    from pipeline.export.finding import Slot, find_model

    _check(to, {
        "--classifier": (classifier, ("onnx", "huggingface")), "--lm": (lm, ("fastai", "huggingface")),
        "--name": (name, ("fastai", "huggingface")), "--int8": (int8 or None, ("onnx",)),
        "--input": (texts, ("onnx",)), "--text-column": (text_column, ("onnx",)), "--split": (split, ("onnx",)),
        "--documents": (documents, ("onnx",)),
        "--evaluation": (evaluation, ("huggingface",)), "--license": (license, ("huggingface",)),
        "--language": (language, ("huggingface",)),
    })
    slot: Slot = "lm" if to == "fastai" or lm is not None else "classifier"
    if lm is not None and classifier is not None:
        raise UsageError("--classifier and --lm both say which model.", "Give one of them.")
    if evaluation is not None and lm is not None:
        raise UsageError("--evaluation is of a classifier, and --lm is a language model.", "Leave out one of the two.")
    if text_column is not None and texts is None:
        raise UsageError("--text-column names a column, and there is no table.", "Give one with --input.")
    if split is not None and texts is not None:
        raise UsageError("--split and --input both say what is compared.", "Give one of them.")
    reporter = Reporter()
    model = find_model(slot, lm if slot == "lm" else classifier, run, home)
    if output.resolve() == model.path.resolve():
        raise UsageError(f"--output {output} is the model itself.", "Name another folder.")
    if to == "fastai":
        from pipeline.export.fastai import export_fastai

        done = export_fastai(model, output, name, reporter, force=force)
        print(f"load it with fastai (from fastai.text.all import *):\n{done.code}")
    elif to == "onnx":
        try:
            from pipeline.export.onnx_folder import OnnxRequest, describe, export_onnx
            from pipeline.inference.inputs import TEXT_COLUMN
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            if package not in ("onnx", "onnxruntime"):
                raise
            mend = "Install what it needs: pip install -c constraints.txt '.[onnx]'"
            raise UsageError(f"{package} is not installed.", mend) from error

        request = OnnxRequest(
            output, documents or 1000, int8, texts, text_column or TEXT_COLUMN, split or "valid", home, force
        )
        print(describe(export_onnx(model, request, reporter)))
    else:
        from pipeline.export.card import CardRequest, find_evaluation
        from pipeline.export.huggingface import export_huggingface

        card = CardRequest(name or model.path.absolute().parent.name, license or "unknown", language)
        scored = find_evaluation(model, evaluation) if slot == "classifier" else None
        export_huggingface(model, scored, output, card, reporter, home=home, force=force)
        print(f"look at {output / 'README.md'}, then: python -m pipeline push --folder {output} --repo OWNER/NAME")


def _check(to: Form, options: dict[str, tuple[Any, tuple[Form, ...]]]) -> None:
    """UsageError for an option that the form does not have."""
    for option, (value, forms) in options.items():
        if value is not None and to not in forms:
            wrong = f"{option} is for {' and '.join(forms)}, not for {to}."
            raise UsageError(wrong, "Leave it out, or give another --to.")
