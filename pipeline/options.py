"""Options that several commands share, told once."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.protocol import Protocol

RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|FILE", help="A shipped recipe (see `recipes`) or a .toml file. Default: the "
                 "arguments of the run's last command, else sample."),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Name of the run. Default: the name of the recipe.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting of the recipe; may be repeated. The "
                 "settings: `recipes --settings`, or --help of each stage."),
]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", metavar="PATH", help="Local data to read; short for --set prepare_corpus.source=PATH."),
]
ProtocolOption = Annotated[
    Protocol | None,
    typer.Option("--protocol", help="honest: test text is read by the evaluation only. published: as the notebooks do, "
                 "the language model reads it and it chooses the classifier's epoch; such runs end in -published, and "
                 "their numbers say so.", show_default="honest"),
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", metavar="NAME", help="Only this variant of the recipe. Default: all.")
]
HomeOption = Annotated[
    # A shell leaves the ~ of --home=~/x to us.
    Path, typer.Option("--home", metavar="DIR", help="Folder that holds data/ and models/. Default: the current one.",
                       show_default=False, callback=lambda home: Path(os.path.expanduser(home))),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Fetch nothing; short for --set prepare_corpus.offline=true. "
                       "`prepare_corpus --download-only` fetches before.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace artifacts that were made with other settings or are damaged.")
]
StopAfterOption = Annotated[
    float | None,
    typer.Option("--stop-after", metavar="MINUTES", min=0.0, help="Save and stop (exit 75) after this many minutes, "
                 "before a time limit does; the same command goes on."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; run nothing, write nothing.")]
TextsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TEXT]...", help="Texts. Default: --input, or one text a line from standard input."),
]
InputOption = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="A .txt (one text a line), .csv, .jsonl or .parquet."),
]
IdColumnOption = Annotated[
    str | None, typer.Option("--id-column", metavar="NAME", help="Default: id if there is one, else row numbers.")
]
TextColumnOption = Annotated[str, typer.Option("--text-column", metavar="NAME")]
BsOption = Annotated[int, typer.Option("--bs", min=1, help="Documents per batch.")]
PrecisionOption = Annotated[
    str, typer.Option("--precision", metavar="auto|fp16|bf16|fp32", help="auto: fp16 on CUDA, bf16 on a CPU that has "
                      "it, else fp32.")
]
ClassifierPrecisionOption = Annotated[
    str, typer.Option("--precision", metavar="auto|fp16|bf16|fp32|int8", help="auto: fp16 on CUDA, bf16 on a CPU that "
                      "has it, else fp32. int8: auto with LSTM weights in 8 bits, for one text after another on a CPU.")
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]")]
ReplaceOption = Annotated[
    bool, typer.Option("--force", help="Replace the output; discard an unfinished one of another input or model.")
]
