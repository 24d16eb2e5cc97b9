"""Options of the `push` command."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.progress import Reporter


def command(
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="What `export --to huggingface` wrote.")
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="A repository that is made is private.")] = False,
) -> None:
    """Upload an exported folder to the Hugging Face Hub, with the token in HF_TOKEN or of `hf auth login`."""
    from pipeline.export.pushing import push

    print(push(folder, repo, Reporter(), private=private))
