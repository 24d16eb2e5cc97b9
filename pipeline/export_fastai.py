"""The command `export --to fastai`: a sealed language model as files that fastai's own functions load.

NAME.pth and NAME_vocab.pkl are what `language_model_learner(pretrained_fnames=...)` and `load_pretrained` read,
NAME_encoder.pth is what `load_encoder` reads. torch and fastai are imported only when there is something to write.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import machine
from pipeline.artifact import Artifact, hash_file, open_artifact, read_manifest
from pipeline.errors import InputError, PipelineError, UsageError
from pipeline.progress import Reporter
from pipeline.storage import move_into_place, sync

COMMAND = "export"


@dataclass(frozen=True)
class Exported:
    """What was written, and how fastai loads it."""

    paths: tuple[Path, ...]
    """Model, vocabulary and encoder."""
    code: str
    """Python that builds a learner from the files, given its `dls`."""


def find_lm(lm: Path | None, run: str | None, home: Path) -> Artifact:
    """The language model in the folder `lm`, or the one that `run` has below `home`.

    Raises UsageError if both or none are named or the run has two, InputError if there is none or it is damaged.
    """
    if (lm is None) == (run is None):
        raise UsageError("Which language model is not said.", "Give --lm FOLDER or --run NAME, one of them.")
    if lm is None:
        assert run is not None
        folders = [home / "models" / run / f"lm-{direction}" for direction in ("fwd", "bwd")]
        found = [folder for folder in folders if read_manifest(folder) is not None]
        if len(found) != 1:
            what = "two language models" if found else f"no sealed language model in {home.resolve()}"
            raise (UsageError if found else InputError)(
                f"The run {run!r} has {what}.",
                f"Name one: {' or '.join(f'--lm {folder}' for folder in found or folders)}.",
            )
        lm = found[0]
    return open_artifact(lm, "lm")


def export_fastai(lm: Artifact, output: Path, name: str | None, reporter: Reporter, *, force: bool = False) -> Exported:
    """Write the three files into the folder `output`; each is complete or absent, the same model gives the same bytes.

    `name` is lm_fwd or lm_bwd by default, so that the direction stays told. Raises InputError for files that are
    there already with another content (without `force`), UsageError for a name with a path in it, StorageError.
    """
    name = name or f"lm_{lm.manifest.identity['direction']}"
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} cannot name files.", "Use letters, digits, '.', '_' and '-': --name NAME.")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file, not a folder.", "Name another --output.")
    with _limits():
        output.mkdir(parents=True, exist_ok=True)
        return _export(lm, output, name, reporter, force)


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        expected = machine.limit_behind(error, COMMAND)
        if expected is None:
            raise
        raise expected from error


def _export(lm: Artifact, output: Path, name: str, reporter: Reporter, force: bool) -> Exported:
    from pipeline.model.fastai_export import fastai_state
    from pipeline.model.pickled_strings import write_string_list
    from pipeline.model.torch_archive import write_tensors
    from pipeline.text.tokenizer import tokenizer_kind
    from pipeline.text.vocabulary import read_vocabulary

    vocabulary = read_vocabulary(lm.path)
    state = fastai_state(lm.path, vocabulary)
    encoder = {key.removeprefix("0."): tensor for key, tensor in state.tensors.items() if key.startswith("0.")}
    paths = tuple(output / file for file in (f"{name}.pth", f"{name}_vocab.pkl", f"{name}_encoder.pth"))
    written = [path.with_name(f".{path.name}.tmp") for path in paths]
    try:
        write_tensors(written[0], state.tensors)
        write_string_list(written[1], vocabulary)
        write_tensors(written[2], encoder)
        for temporary, path in zip(written, paths, strict=True):
            if path.exists() and not force and hash_file(path) != hash_file(temporary):
                raise InputError(f"{path} is there already and holds something else.", "Replace it with --force.")
        for temporary, path in zip(written, paths, strict=True):
            sync(temporary)
            move_into_place(temporary, path)
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)
    reporter.line(f"{COMMAND}: {len(vocabulary):,} tokens and their model written to {', '.join(map(str, paths))}")
    kind = tokenizer_kind(lm.path / "tokenizer")
    if kind != "word":
        reporter.line(
            f"{COMMAND}: fastai has no tokenizer that gives these {kind} tokens; number texts with data/RUN/ids"
        )
    if not state.config["tie_weights"]:
        reporter.line(
            f"{COMMAND}: the decoder has weights of its own; load_pretrained would put the embedding in their place, "
            "so load the model with learn.load"
        )
    return Exported(paths, _code(paths, state.config, lm.manifest.identity["direction"]))


def _code(paths: tuple[Path, ...], config: dict[str, Any], direction: str) -> str:
    stems = [str(path.with_suffix("").absolute()) for path in paths[:2]]
    sizes = ", ".join(f"{key}={value!r}" for key, value in config.items())
    backwards = "  # dls made with backwards=True" if direction == "bwd" else ""
    return (
        f"config = dict(awd_lstm_lm_config, {sizes})\n"
        f"learn = language_model_learner(dls, AWD_LSTM, config=config, pretrained_fnames={stems}){backwards}"
    )
