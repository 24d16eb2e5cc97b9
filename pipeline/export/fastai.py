"""The command `export --to fastai`: a sealed language model as files that fastai's own functions load.

NAME.pth and NAME_vocab.pkl are what `language_model_learner(pretrained_fnames=...)` and `load_pretrained` read,
NAME_encoder.pth is what `load_encoder` reads. torch and fastai are imported only when there is something to write.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.errors import UsageError
from pipeline.export.placing import COMMAND, placed
from pipeline.progress import Reporter
from pipeline.text.tokenizer import tokenizer_kind
from pipeline.text.vocabulary import read_vocabulary


@dataclass(frozen=True)
class Exported:
    """What was written, and how fastai loads it."""

    paths: tuple[Path, ...]
    """Model, vocabulary and encoder."""
    code: str
    """Python that builds a learner from the files, given its `dls`."""


def export_fastai(lm: Artifact, output: Path, name: str | None, reporter: Reporter, *, force: bool = False) -> Exported:
    """Write the three files into the folder `output`; each is complete or absent, the same model gives the same bytes.

    `name` is lm_fwd or lm_bwd by default, so that the direction stays told. Raises InputError for files that are
    there already with another content (without `force`), UsageError for a name with a path in it, StorageError.
    """
    name = name or f"lm_{lm.manifest.identity['direction']}"
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} cannot name files.", "Use letters, digits, '.', '_' and '-': --name NAME.")
    with placed(output, force=force) as work:
        files, config = _write(lm.path, work, name)
    paths = tuple(output / file for file in files)
    reporter.line(f"{COMMAND}: the language model of {lm.path} written to {', '.join(map(str, paths))}")
    kind = tokenizer_kind(lm.path / "tokenizer")
    if kind != "word":
        reporter.line(
            f"{COMMAND}: fastai has no tokenizer that gives these {kind} tokens; number texts with data/RUN/ids"
        )
    if not config["tie_weights"]:
        reporter.line(
            f"{COMMAND}: the decoder has weights of its own; load_pretrained would put the embedding in their place, "
            "so load the model with learn.load"
        )
    return Exported(paths, _code(paths, config, lm.manifest.identity["direction"]))


def _write(lm: Path, work: Path, name: str) -> tuple[tuple[str, str, str], dict[str, Any]]:
    """Names of the files, and the entries of fastai's configuration that build the model."""
    from pipeline.model.fastai_export import fastai_state
    from pipeline.model.pickled_strings import write_string_list
    from pipeline.model.torch_archive import write_tensors

    vocabulary = read_vocabulary(lm)
    state = fastai_state(lm, vocabulary)
    encoder = {key.removeprefix("0."): tensor for key, tensor in state.tensors.items() if key.startswith("0.")}
    files = (f"{name}.pth", f"{name}_vocab.pkl", f"{name}_encoder.pth")
    write_tensors(work / files[0], state.tensors)
    write_string_list(work / files[1], vocabulary)
    write_tensors(work / files[2], encoder)
    return files, state.config


def _code(paths: tuple[Path, ...], config: dict[str, Any], direction: str) -> str:
    stems = [str(path.with_suffix("").absolute()) for path in paths[:2]]
    sizes = ", ".join(f"{key}={value!r}" for key, value in config.items())
    backwards = "  # dls made with backwards=True" if direction == "bwd" else ""
    return (
        f"config = dict(awd_lstm_lm_config, {sizes})\n"
        f"learn = language_model_learner(dls, AWD_LSTM, config=config, pretrained_fnames={stems}){backwards}"
    )
