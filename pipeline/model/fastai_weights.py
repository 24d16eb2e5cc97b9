"""A language model's weights as fastai 1 and 2 save them, turned into this project's names, rows and vocabulary.

fastai's names: `0.encoder.weight` [V, D], once more as `0.encoder_dp.emb.weight`; per layer i
`0.rnns.i.module.weight_ih_l0`, `bias_ih_l0`, `bias_hh_l0`, and `0.rnns.i.weight_hh_l0_raw`, the weight before its
dropout (`0.rnns.i.module.weight_hh_l0` is what dropout left of it, or the weight itself where there is no raw one);
`1.decoder.weight` [V, D] and `1.decoder.bias` [V]. A file of `save_encoder` has the encoder alone, without the `0.`.
"""

import contextlib
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from pipeline.errors import InputError
from pipeline.model.architecture import Architecture
from pipeline.model.fastai_files import MAX_BYTES
from pipeline.model.stored_tensors import Tensors
from pipeline.model.unused_rows import silence
from pipeline.text.rules import SPECIAL_TOKENS

FILLER = "xxfake"
"""fastai's token for rows that pad the vocabulary to a multiple of 8."""
MAX_PIECES = 0.3
"""Share of tokens starting with the mark of SentencePiece above which a vocabulary is not one of words."""

_LAYER = re.compile(r"rnns\.(\d+)\.(?:module\.(weight_ih|weight_hh|bias_ih|bias_hh)_l0|(weight_hh)_l0_raw)")
_MEND = "import-fastai reads AWD_LSTM language models of fastai 1 and 2: LSTM layers, one direction."


class _Discarded:
    """Stands for whatever an optimizer's state is made of; weights are read without it."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


# torch builds a _Discarded where the optimizer's state, which `learn.save` adds by default, names one of these.
_OPTIMIZER_PARTS: list[Any] = [
    (_Discarded, name)
    for name in ("fastcore.foundation.L", "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar",
                 "numpy.dtype")
]


@dataclass(frozen=True)
class ConvertedModel:
    """A language model under this project's names, and what became of its parts."""

    architecture: Architecture
    vocabulary: list[str]
    encoder: Tensors
    decoder: Tensors
    record: dict[str, Any]
    """For the manifest: tokens added and dropped, where the decoder comes from, the type of the numbers."""


def read_weights(path: Path) -> Tensors:
    """The model's tensors in a .pth file by fastai's names, without the optimizer's state.

    Raises InputError if the file is damaged, larger than 4 GiB, holds objects other than tensors, or tensors that claim
    more numbers than the file has; no code in it is run.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes; import-fastai reads at most {MAX_BYTES:,}.", _MEND)
    _check_container(path, size)
    try:
        with _allowed(_OPTIMIZER_PARTS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors and archives that are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch has a dozen types for files that are not its own
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise
        raise InputError(f"{path} is damaged or holds more than tensors: {_reason(error)}.", _MEND) from error
    if isinstance(state, dict) and set(state) == {"model", "opt"}:
        state = state["model"]
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path} holds no model, but {type(state).__name__}.", _MEND)
    claimed = 0
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{path}: {str(name)[:80]!r} is no tensor but {type(tensor).__name__}.", _MEND)
        plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type == "cpu" and tensor.numel() > 0
        if not plain or tensor.layout != torch.strided or not tensor.is_floating_point() or not tensor.dim():
            raise InputError(f"{path}: tensor {name} is no plain tensor of real numbers.", _MEND)
        claimed += tensor.nbytes
    if claimed > 3 * size:  # the embedding is named up to three times and stored once
        raise InputError(f"{path}: its tensors claim {claimed:,} bytes, the file has {size:,}.", _MEND)
    return state


@contextlib.contextmanager
def _allowed(parts: list[Any]) -> Iterator[None]:
    """Let torch.load build `parts`, and nothing that other packages allow, such as traceback's frames: they open files.
    """
    before = get_safe_globals()
    clear_safe_globals()
    add_safe_globals(parts)
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)


def _check_container(path: Path, size: int) -> None:
    """InputError for a zip archive that torch did not write: truncated, larger inside than outside, or changed."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return  # the form torch had before 1.6; its own reader checks it
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > size:
                raise InputError(f"{path} unpacks to more than its size; a file saved by torch does not.", _MEND)
            changed = archive.testzip()  # torch does not compare the checksums
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, NotImplementedError, RuntimeError, OSError
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; that of bzip2 has no number
        raise InputError(f"{path} is truncated or damaged: {error}.", "Fetch or save it again.") from error
    if changed is not None:
        raise InputError(f"{path} is damaged: {changed!r} has not its checksum.", "Fetch or save it again.")


def _reason(error: Exception) -> str:
    """What torch found, without its advice to load the file unsafely."""
    text = " ".join(str(error).split())
    found = re.search(r"(?:Unsupported|Trying to|Can only|Cannot use) .*?(?= was not |\. |$)", text)
    return (found[0] if found else text[:200] or type(error).__name__).rstrip(".: ")


def convert(tensors: Tensors, itos: list[str], where: Path) -> ConvertedModel:
    """The model with the nine special tokens first, each token once, and rows padded as `Architecture.rows` says.

    A special token that `itos` lacks gets the mean of all rows, as fastai's `match_embeds` gives it. `xxfake` rows are
    dropped; of a token that is listed twice the last row stays, which is the one fastai uses. Rows that no token uses
    are zero and can never be predicted. Raises InputError naming the tensor that is missing, unexpected or of the
    wrong shape, or what is wrong with the vocabulary.
    """
    tensors, encoder_only = _without_prefix(tensors, where)
    embedding = _take(tensors, "encoder.weight", where)
    copy = tensors.pop("encoder_dp.emb.weight", embedding)
    weight, bias = tensors.pop("decoder.weight", embedding), tensors.pop("decoder.bias", None)
    layers = _layers(tensors, where)
    if embedding.dim() != 2:
        raise InputError(f"{where}: tensor encoder.weight is {list(embedding.shape)}, not [tokens, size].", _MEND)
    if len(itos) != len(embedding):
        raise InputError(
            f"{where} has {len(embedding):,} embedding rows, its vocabulary {len(itos):,} tokens.",
            "Give the vocabulary that was saved with these weights.",
        )
    if not torch.equal(copy, embedding):
        raise InputError(f"{where} holds two embeddings that differ (encoder and encoder_dp.emb).", _MEND)
    _require(weight, "decoder.weight", list(embedding.shape), where)
    if bias is not None:
        _require(bias, "decoder.bias", [len(embedding)], where)

    tied = torch.equal(weight, embedding)
    emb_sz = embedding.shape[1]
    n_hid = layers[0]["weight_hh"].shape[-1] if len(layers) > 1 else emb_sz
    rows = _Rows(itos, where)
    architecture = Architecture(len(rows.vocabulary), emb_sz, n_hid, len(layers), tied)
    encoder = {"embedding.weight": rows.reorder(embedding, architecture.rows)}
    for i, (layer, (n_in, n_out)) in enumerate(zip(layers, architecture.layer_sizes, strict=True)):
        shapes = {"weight_ih": [4 * n_out, n_in], "weight_hh": [4 * n_out, n_out]}
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            _require(layer[name], f"rnns.{i} {name}", shapes.get(name, [4 * n_out]), where)
            encoder[f"lstm.{i}.{name}"] = layer[name].float()
    old_bias = torch.zeros(len(embedding)) if bias is None else bias
    decoder = {"bias": rows.reorder(old_bias, architecture.rows)}
    new_weight = encoder["embedding.weight"] if tied else rows.reorder(weight, architecture.rows)
    if not tied:
        decoder["weight"] = new_weight
    for name, tensor in (*encoder.items(), *decoder.items()):
        if not tensor.isfinite().all():
            raise InputError(f"{where}: tensor {name} holds NaN or infinity.", "Save a model that has not diverged.")
    silence(new_weight, decoder["bias"], len(rows.vocabulary))
    return ConvertedModel(
        architecture, rows.vocabulary, encoder, decoder,
        {
            "special_tokens_added": rows.added, "special_tokens_moved": rows.moved, "xxfake_dropped": rows.fillers,
            "repeated_tokens_dropped": rows.repeated, "number_type": str(embedding.dtype).removeprefix("torch."),
            "decoder": "missing" if encoder_only else "tied" if tied else "separate",
            "decoder_bias": bias is not None,
        },
    )


def _without_prefix(tensors: Tensors, where: Path) -> tuple[Tensors, bool]:
    """Tensors by name without the number of their part, and whether there is no decoder among them."""
    if "0.module.encoder.weight" in tensors:
        raise InputError(
            f"{where} holds a classifier.", "Import the language model it came from, or one saved by save_encoder."
        )
    if "encoder.weight" in tensors:
        return dict(tensors), True
    parts = {"0.": "", "1.decoder.": "decoder."}
    renamed = {}
    for name, tensor in tensors.items():
        prefix = next((p for p in parts if name.startswith(p)), None)
        if prefix is None:
            raise InputError(f"{where} holds an unexpected tensor {name[:80]!r}.", _MEND)
        renamed[parts[prefix] + name.removeprefix(prefix)] = tensor
    return renamed, "decoder.weight" not in renamed and "decoder.bias" not in renamed


def _take(tensors: Tensors, name: str, where: Path) -> Tensor:
    if name not in tensors:
        raise InputError(f"{where} lacks tensor {name}.", _MEND)
    return tensors.pop(name)


def _layers(tensors: Tensors, where: Path) -> list[Tensors]:
    """Weights of each LSTM layer by torch's names; the weight before dropout counts where both are there."""
    layers: dict[int, Tensors] = {}
    for name in sorted(tensors):  # "module.weight_hh_l0" comes before "weight_hh_l0_raw"
        match = _LAYER.fullmatch(name)
        if match is None:
            raise InputError(f"{where} holds an unexpected tensor {name[:80]!r}.", _MEND)
        layers.setdefault(int(match[1]), {})[match[2] or match[3]] = tensors[name]
    for i in range(max(1, len(layers))):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            if name not in layers.get(i, {}):
                raise InputError(f"{where} lacks tensor rnns.{i}.module.{name}_l0.", _MEND)
    return [layers[i] for i in range(len(layers))]


def _require(tensor: Tensor, name: str, shape: list[int], where: Path) -> None:
    if list(tensor.shape) != shape:
        raise InputError(f"{where}: tensor {name} is {list(tensor.shape)}, the other tensors need {shape}.", _MEND)


class _Rows:
    """Which row of the file each token of the new vocabulary has."""

    def __init__(self, itos: list[str], where: Path) -> None:
        row_of = {token: row for row, token in enumerate(itos) if token != FILLER}
        words = [token for token in row_of if token not in SPECIAL_TOKENS]
        if not words:
            raise InputError(f"{where}: its vocabulary holds no word.", "Give the vocabulary saved with these weights.")
        pieces = sum(token.startswith("▁") for token in words) / len(words)
        if pieces > MAX_PIECES:
            raise InputError(
                f"{where}: {pieces:.0%} of its tokens start with '▁', the mark of SentencePiece pieces.",
                "import-fastai reads models of words; train one of pieces with tokenize_corpus.tokenizer=subword.",
            )
        self.vocabulary = [*SPECIAL_TOKENS, *words]
        self.added = [token for token in SPECIAL_TOKENS if token not in row_of]
        self.moved = [token for i, token in enumerate(SPECIAL_TOKENS) if row_of.get(token, i) != i]
        self.fillers = itos.count(FILLER)
        self.repeated = len(itos) - self.fillers - len(row_of)
        self._kept = torch.tensor(list(row_of.values()))
        self._source = torch.tensor([row_of.get(token, -1) for token in self.vocabulary])

    def reorder(self, old: Tensor, n_rows: int) -> Tensor:
        """Rows [V, ...] of the file -> [n_rows, ...] of the new vocabulary; missing ones the mean, unused ones 0."""
        old = old.float()
        new = torch.zeros(n_rows, *old.shape[1:])
        new[: len(self._source)] = old[self._source]
        new[: len(self._source)][self._source < 0] = old[self._kept].mean(0)
        return new
