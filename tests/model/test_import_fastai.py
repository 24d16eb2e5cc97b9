"""Language models that fastai itself saved, imported: equal scores and losses, and a run that starts from them."""

import csv
import gzip
import hashlib
import io
import json
import pickle
import re
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.text.data import LMDataLoader
from fastai.text.learner import LMLearner, load_model_text
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config, awd_lstm_lm_split
from fastai.text.models.core import get_language_model
from file_server import Server
from torch import Tensor
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from pipeline import download
from pipeline.artifact import Artifact, hash_folder, hash_json
from pipeline.attempt import open_partial
from pipeline.cli import app
from pipeline.errors import InputError, UsageError
from pipeline.import_fastai import ImportRequest, direction_of, import_fastai, target_folder, use_of
from pipeline.model import fastai_files
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.fastai_files import PUBLISHED, direction_in
from pipeline.model.fastai_weights import convert
from pipeline.model.unused_rows import SILENCE
from pipeline.model.weights import load_language_model
from pipeline.progress import Reporter
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.vocabulary import read_vocabulary

SIZES = {"emb_sz": 8, "n_hid": 12, "n_layers": 3}
WORDS = [*"abcdefghijklmnopqrstuvwxyz.,!?", "film", "good"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS]
FASTAI_1_SPECIAL = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep"]
"""fastai 1.0.61, text/transform.py, defaults.text_spec_tok."""


def fastai_model(n_tokens: int, **changes: Any) -> Any:
    return get_language_model(AWD_LSTM, n_tokens, {**awd_lstm_lm_config, **SIZES, **changes})


def train(folder: Path, vocabulary: list[str], **changes: Any) -> LMLearner:
    """A learner of fastai's, trained for a few steps so that no two rows are alike."""
    torch.manual_seed(3)
    items = [torch.randint(9, len(vocabulary), (60,)) for _ in range(6)]
    loader = LMDataLoader(items, bs=3, seq_len=8)
    dls = DataLoaders(loader, loader, path=folder)
    dls.vocab = vocabulary
    learn = LMLearner(dls, fastai_model(len(vocabulary), **changes), loss_func=CrossEntropyLossFlat(),
                      splitter=awd_lstm_lm_split, path=folder)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    return learn


def pickled(path: Path, vocabulary: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(vocabulary, protocol))
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one model as fastai saves it: whole, without optimizer, encoder alone; and its vocabulary."""
    folder = tmp_path_factory.mktemp("fastai")
    learn = train(folder, VOCABULARY)
    learn.save("full")
    learn.save("weights", with_opt=False)
    learn.save_encoder("encoder")
    pickled(folder / "models/itos.pkl", VOCABULARY)
    return folder / "models"


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def bring(tmp_path: Path, said: io.StringIO) -> Callable[..., Artifact]:
    """bring(source, vocabulary, ...) imports into `tmp_path`/lm; fwd unless told otherwise."""

    def run(source: Path | str, vocabulary: Path | None = None, *, direction: str | None = "fwd",
            force: bool = False, target: Path | None = None, **request: Any) -> Artifact:
        asked = ImportRequest(str(source), str(vocabulary) if vocabulary else None, direction=direction, **request)
        return import_fastai(asked, target or tmp_path / "lm", Reporter(said), home=tmp_path / "home", force=force)

    return run


def ours(lm: Artifact) -> Any:
    model = build_language_model(Architecture.load(lm.file("architecture.json")))
    load_language_model(model, lm.path)
    return model.eval()


def assert_equal(lm: Artifact, theirs: Any, itos: list[str], atol: float = 1e-6) -> None:
    """Scores of every real token, and the loss, are those of fastai's model, whose xxfake rows are left out."""
    vocabulary = read_vocabulary(lm.path)
    row_of = {token: row for row, token in enumerate(itos)}
    common = [token for token in vocabulary if token in row_of]
    mine, other = ours(lm), theirs.eval()
    words = torch.randint(len(common), (4, 15), generator=torch.Generator().manual_seed(1))
    our_ids = torch.tensor([vocabulary.index(token) for token in common])
    their_ids = torch.tensor([row_of[token] for token in common])
    with torch.no_grad():
        other.reset()
        scores, their_scores = mine(our_ids[words])[0], other(their_ids[words])[0]
    torch.testing.assert_close(scores[..., our_ids], their_scores[..., their_ids], atol=atol, rtol=0)
    if len(common) == len(vocabulary):  # all of our rows against all of theirs that stand for a token
        targets = words.roll(-1, 1).flatten()
        loss = cross_entropy(scores.flatten(0, 1), our_ids[targets])
        their_loss = cross_entropy(their_scores[..., their_ids].flatten(0, 1), targets)
        torch.testing.assert_close(loss, their_loss, atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["full", "weights"])
def test_a_model_saved_by_fastai_2(saved: Path, bring: Callable[..., Artifact], name: str) -> None:
    lm = bring(saved / f"{name}.pth", saved / "itos.pkl")
    theirs = fastai_model(len(VOCABULARY))
    load_model_text(saved / f"{name}.pth", theirs, None, with_opt=False)
    assert len(VOCABULARY) % 8  # so that there are rows no token uses
    assert_equal(lm, theirs, VOCABULARY)
    assert read_vocabulary(lm.path) == VOCABULARY
    assert set(lm.manifest.files) == {
        "encoder.safetensors", "decoder.safetensors", "architecture.json", "vocabulary.json", "tokenizer/tokenizer.json"
    }
    assert Architecture.load(lm.file("architecture.json")) == Architecture(len(VOCABULARY), 8, 12, 3)
    assert lm.manifest.identity == {
        "tokenizer": hash_folder(lm.path / "tokenizer"), "vocabulary": hash_json(VOCABULARY), "direction": "fwd",
        "architecture": Architecture(len(VOCABULARY), 8, 12, 3).hash(),
    }
    metrics = lm.manifest.metrics
    assert metrics["parameters"] == sum(p.numel() for p in ours(lm).parameters())
    assert metrics["decoder"] == "tied"
    assert metrics["decoder_bias"] is True
    assert metrics["transductive"] is False
    assert metrics["special_tokens_added"] == metrics["special_tokens_moved"] == []
    assert lm.manifest.source["identity"]["files"][0]["sha256"] == hashlib.sha256(
        (saved / f"{name}.pth").read_bytes()
    ).hexdigest()


def test_the_loss_of_all_rows_is_fastais(saved: Path, bring: Callable[..., Artifact]) -> None:
    lm = bring(saved / "full.pth", saved / "itos.pkl")
    theirs = fastai_model(len(VOCABULARY))
    load_model_text(saved / "full.pth", theirs, None, with_opt=False)
    x = torch.randint(9, len(VOCABULARY), (4, 20))
    with torch.no_grad():
        loss = CrossEntropyLossFlat()(ours(lm)(x)[0], x.roll(-1, 1))
        their_loss = CrossEntropyLossFlat()(theirs.eval()(x)[0], x.roll(-1, 1))
    torch.testing.assert_close(loss, their_loss, atol=1e-6, rtol=0)


def fastai_1_state(model: Any) -> dict[str, Tensor]:
    """As fastai 1 names its parameters: what dropout made of each hidden weight stands beside the weight itself."""
    state = OrderedDict()
    for name, tensor in model.state_dict().items():
        state[name] = tensor
        if name.endswith("weight_hh_l0_raw"):
            dropped = name.replace("weight_hh_l0_raw", "module.weight_hh_l0")
            state[dropped] = torch.nn.functional.dropout(tensor, 0.5)
    return state


def test_a_model_of_fastai_1_has_its_special_tokens_reordered(
    tmp_path: Path, bring: Callable[..., Artifact], said: io.StringIO
) -> None:
    itos = [*FASTAI_1_SPECIAL, *WORDS]
    itos += ["xxfake"] * (-len(itos) % 8)
    model = train(tmp_path, itos).model
    weights = tmp_path / "lstm_wt103.pth"
    state = {"model": fastai_1_state(model), "opt": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save(state, weights, _use_new_zipfile_serialization=False)
    lm = bring(weights, pickled(tmp_path / "itos_wt103.pkl", itos, protocol=3))
    assert read_vocabulary(lm.path) == VOCABULARY
    assert_equal(lm, model, [token for token in itos if token != "xxfake"])
    assert lm.manifest.metrics["special_tokens_moved"] == ["xxrep", "xxwrep", "xxup", "xxmaj"]
    assert lm.manifest.metrics["xxfake_dropped"] == itos.count("xxfake") > 0
    assert "special tokens moved to this project's order: xxrep, xxwrep, xxup, xxmaj" in said.getvalue()


def test_a_missing_special_token_gets_the_mean_row(tmp_path: Path, bring: Callable[..., Artifact]) -> None:
    itos = [token for token in FASTAI_1_SPECIAL if token not in ("xxeos", "xxpad")] + WORDS
    model = train(tmp_path, itos).model
    torch.save(model.state_dict(), tmp_path / "w.pth")
    lm = bring(tmp_path / "w.pth", pickled(tmp_path / "itos.pkl", itos))
    assert read_vocabulary(lm.path)[:9] == list(SPECIAL_TOKENS)
    assert lm.manifest.metrics["special_tokens_added"] == ["xxpad", "xxeos"]
    assert_equal(lm, model, itos)
    mine = ours(lm)
    for i in (1, 3):
        torch.testing.assert_close(mine[0].encoder.weight[i], model[0].encoder.weight.mean(0))
        torch.testing.assert_close(mine[1].decoder.bias[i], model[1].decoder.bias.mean())


def test_an_encoder_alone_gets_the_embedding_as_decoder(
    saved: Path, bring: Callable[..., Artifact], said: io.StringIO
) -> None:
    lm = bring(saved / "encoder.pth", saved / "itos.pkl")
    theirs = fastai_model(len(VOCABULARY))
    load_model_text(saved / "full.pth", theirs, None, with_opt=False)
    theirs[1].decoder.bias.data.zero_()
    assert_equal(lm, theirs, VOCABULARY)
    assert lm.manifest.metrics["decoder"] == "missing"
    assert "the file holds an encoder alone" in said.getvalue()


@pytest.mark.parametrize(
    ("changes", "decoder"),
    [
        ({"tie_weights": False}, "separate"), ({"out_bias": False}, "tied"), ({"n_layers": 1}, "tied"),
        ({"n_layers": 2, "n_hid": 20}, "tied"),
    ],
)
def test_other_shapes(
    tmp_path: Path, bring: Callable[..., Artifact], changes: dict[str, Any], decoder: str
) -> None:
    model = train(tmp_path, VOCABULARY, **changes).model
    torch.save(model.state_dict(), tmp_path / "w.pth")
    lm = bring(tmp_path / "w.pth", pickled(tmp_path / "itos.pkl", VOCABULARY))
    assert_equal(lm, model, VOCABULARY)
    assert lm.manifest.metrics["decoder"] == decoder
    assert lm.manifest.metrics["decoder_bias"] == ("out_bias" not in changes)


def test_half_precision_is_widened(saved: Path, tmp_path: Path, bring: Callable[..., Artifact]) -> None:
    state = torch.load(saved / "weights.pth", weights_only=True)
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    lm = bring(tmp_path / "half.pth", saved / "itos.pkl")
    theirs = fastai_model(len(VOCABULARY))
    load_model_text(saved / "weights.pth", theirs, None, with_opt=False)
    assert_equal(lm, theirs, VOCABULARY, atol=2e-3)
    assert lm.manifest.metrics["number_type"] == "float16"


def test_of_a_token_listed_twice_the_last_row_stays_as_in_fastai(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact]
) -> None:
    itos = [*VOCABULARY[:-1], "film"]
    lm = bring(saved / "weights.pth", pickled(tmp_path / "itos.pkl", itos))
    theirs = fastai_model(len(VOCABULARY))
    load_model_text(saved / "weights.pth", theirs, None, with_opt=False)
    vocabulary = read_vocabulary(lm.path)
    assert sorted(vocabulary) == sorted(set(itos))
    assert torch.equal(ours(lm)[0].encoder.weight[vocabulary.index("film")], theirs[0].encoder.weight[-1])
    assert lm.manifest.metrics["repeated_tokens_dropped"] == 1


def test_rows_that_no_token_uses_can_never_be_predicted() -> None:
    torch.manual_seed(0)
    state = {name: 5 * tensor for name, tensor in fastai_model(len(VOCABULARY), tie_weights=False).state_dict().items()}
    state["1.decoder.bias"] = torch.randn(len(VOCABULARY)) * 10 - 40
    model = convert(state, VOCABULARY, Path("a.pth"))
    unused = model.architecture.rows - len(VOCABULARY)
    assert unused > 0
    outputs = torch.rand(1000, SIZES["emb_sz"]) * 2 - 1  # all that an LSTM can give
    scores = outputs @ model.decoder["weight"].T + model.decoder["bias"]
    assert (scores[:, -unused:] + SILENCE <= scores[:, :-unused].max(1, keepdim=True).values + 1e-3).all()
    assert model.decoder["bias"][-unused:].min() > -200  # no such number as would spoil a mean over rows


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda s: s.pop("0.rnns.1.module.bias_hh_l0"), r"w\.pth lacks tensor rnns\.1\.module\.bias_hh_l0\."),
        (lambda s: s.pop("0.rnns.2.weight_hh_l0_raw"), r"lacks tensor rnns\.2\.module\.weight_hh_l0\."),
        (lambda s: s.pop("0.encoder.weight"), r"lacks tensor encoder\.weight\."),
        (lambda s: s.update({"2.extra": torch.ones(1)}), r"unexpected tensor '2\.extra'"),
        (lambda s: s.update({"0.rnns.0.module.weight_ih_l0_reverse": torch.ones(1)}), r"unexpected .*reverse"),
        (lambda s: s.update({"0.rnns.0.layers.0.linear.weight_raw": torch.ones(1)}), r"unexpected .*linear"),
        (lambda s: s.update({"0.encoder_dp.emb.weight": s["0.encoder.weight"] + 1}), r"two embeddings that differ"),
        (lambda s: s.update({"1.decoder.bias": torch.ones(3)}), r"decoder\.bias is \[3\], the other tensors need"),
        (lambda s: s.update({"0.rnns.1.module.weight_ih_l0": torch.ones(48, 8)}), r"rnns\.1 weight_ih is \[48, 8\]"),
        (lambda s: s["1.decoder.bias"].fill_(float("nan")), r"tensor bias holds NaN or infinity"),
        (lambda s: s.update({"0.module.encoder.weight": torch.ones(1)}), r"holds a classifier\."),
        (lambda s: s.update({"0.encoder.weight": torch.ones(3, dtype=torch.int64)}), r"no plain tensor of real"),
        (lambda s: s.clear(), r"holds no model"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_by_name(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact], break_it: Callable[[Any], Any], message: str
) -> None:
    state = torch.load(saved / "weights.pth", weights_only=True)
    break_it(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        bring(tmp_path / "w.pth", saved / "itos.pkl")
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".partial", "lm"))]


@pytest.mark.parametrize(
    ("itos", "message"),
    [
        (VOCABULARY[:-1], rf"has {len(VOCABULARY)} embedding rows, its vocabulary {len(VOCABULARY) - 1} tokens\."),
        ([*SPECIAL_TOKENS, *(f"▁{word}" for word in WORDS)], r"100% of its tokens start with '▁'"),
        (["xxfake"] * len(VOCABULARY), r"its vocabulary holds no word"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact], itos: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bring(saved / "weights.pth", pickled(tmp_path / "itos.pkl", itos))


def archive_of(path: Path, files: dict[str, Path]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, file in files.items():
            archive.add(file, name)
    return path


def test_an_archive_a_folder_and_a_pair_give_the_same(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact]
) -> None:
    folder = tmp_path / "wt103-bwd"
    folder.mkdir()
    (folder / "lstm_bwd.pth").write_bytes((saved / "full.pth").read_bytes())
    (folder / "itos_wt103.pkl").write_bytes((saved / "itos.pkl").read_bytes())
    archive = archive_of(tmp_path / "wt103-bwd.tgz", {"wt103-bwd": folder})
    found = [
        bring(archive, direction=None, target=tmp_path / "a"),
        bring(folder, direction=None, target=tmp_path / "b"),
        bring(folder / "itos_wt103.pkl", folder / "lstm_bwd.pth", direction="bwd", target=tmp_path / "c"),
    ]
    assert {lm.manifest.identity["direction"] for lm in found} == {"bwd"}
    assert len({json.dumps({n: r.sha256 for n, r in lm.manifest.files.items()}) for lm in found}) == 1
    assert found[1].manifest.fingerprint == found[2].manifest.fingerprint != found[0].manifest.fingerprint


def test_an_archive_of_long_names_without_end_is_refused(tmp_path: Path, bring: Callable[..., Artifact]) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2
    archive = tmp_path / "model-fwd.tgz"
    archive.write_bytes(gzip.compress((name.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 1500))
    with pytest.raises(InputError, match=r"model-fwd\.tgz is truncated or no \.tgz archive: maximum recursion depth"):
        bring(archive)


def test_the_direction_is_never_guessed_against_a_name(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact]
) -> None:
    files = {"model/lstm_bwd.pth": saved / "full.pth", "model/itos_wt103.pkl": saved / "itos.pkl"}
    plain = archive_of(tmp_path / "model.tgz", files)
    with pytest.raises(UsageError, match=r"The name of .*model\.tgz does not tell .* Give --direction fwd or"):
        bring(plain, direction=None)
    with pytest.raises(UsageError, match=r"by its name lstm_bwd\.pth reads bwd, but the direction given is fwd"):
        bring(plain, direction="fwd")
    named = archive_of(tmp_path / "my-bwd.tgz", files)
    with pytest.raises(UsageError, match=r"by its name my-bwd\.tgz reads bwd"):
        bring(named, direction="fwd")
    folder = tmp_path / "my-fwd"
    folder.mkdir()
    (folder / "lstm_bwd.pth").write_bytes((saved / "full.pth").read_bytes())
    (folder / "itos.pkl").write_bytes((saved / "itos.pkl").read_bytes())
    with pytest.raises(UsageError, match=r"my-fwd: by its name lstm_bwd\.pth reads bwd"):
        bring(folder, direction=None)
    unnamed = folder.rename(tmp_path / "mymodel")
    assert direction_of(ImportRequest(str(unnamed))) == "bwd"
    with pytest.raises(UsageError, match=r"There is no direction 'up'"):
        direction_of(ImportRequest(str(named), direction="up"))
    assert [direction_in(name) for name in ("lstm_fwd.pth", "wt103-bwd.tgz", "backward.pth", "a_fwd_bwd", "rebwd")] == [
        "fwd", "bwd", "bwd", None, None
    ]


def test_files_that_are_not_one_model(saved: Path, tmp_path: Path, bring: Callable[..., Artifact]) -> None:
    with pytest.raises(InputError, match=r"There is no file .*nowhere\.tgz\. .* Known by name: wt103-fwd, wt103-bwd"):
        bring(tmp_path / "nowhere.tgz")
    with pytest.raises(InputError, match=r"full\.pth is half of a model; its vocabulary \(itos\*\.pkl\) is missing"):
        bring(saved / "full.pth")
    with pytest.raises(InputError, match=r"holds 3 files \.pth \(encoder\.pth, full\.pth, weights\.pth\)"):
        bring(saved)
    with pytest.raises(InputError, match=r"a\.tgz holds 0 files \.pkl"):
        bring(archive_of(tmp_path / "a.tgz", {"m/a.pth": saved / "full.pth", "m/._b.pkl": saved / "itos.pkl"}))
    with pytest.raises(InputError, match=r"b\.tgz holds 2 files \.pth \(m/a\.pth, m/b\.pth\)"):
        bring(archive_of(tmp_path / "b.tgz", {"m/a.pth": saved / "full.pth", "m/b.pth": saved / "encoder.pth"}))
    with pytest.raises(UsageError, match=r"wt103-fwd holds its vocabulary"):
        bring("wt103-fwd", saved / "itos.pkl")
    with pytest.raises(UsageError, match=r"--source names a copy of a published archive, but .*full\.pth is a file"):
        bring(saved / "full.pth", saved / "itos.pkl", local_copy="x.tgz")


def test_where_a_model_goes(tmp_path: Path) -> None:
    published, own = ImportRequest("wt103-bwd"), ImportRequest("m.tgz", direction="fwd")
    assert target_folder(published, None, None, tmp_path) == tmp_path / "models/wt103/lm-bwd"
    assert target_folder(own, None, "mine", tmp_path) == tmp_path / "models/mine/lm-fwd"
    assert target_folder(own, Path("there"), None, tmp_path) == Path("there")
    with pytest.raises(UsageError, match=r"Nothing says where the model goes\. Give --run NAME or --to FOLDER\."):
        target_folder(own, None, None, tmp_path)
    with pytest.raises(UsageError, match=r"--to and --run both say where the model goes\."):
        target_folder(own, tmp_path, "mine", tmp_path)
    for name in ("../x", ""):
        with pytest.raises(UsageError, match=rf"'{re.escape(name)}' cannot name a run\."):
            target_folder(own, None, name, tmp_path)
    assert target_folder(own, Path(), None, tmp_path) == Path.cwd()
    with pytest.raises(UsageError, match=r"--to / is the root of all folders\."):
        target_folder(own, Path("/"), None, tmp_path)


def test_a_language_that_spacy_has_not_is_refused(saved: Path, bring: Callable[..., Artifact]) -> None:
    with pytest.raises(UsageError, match=r"spaCy has no tokenizer for the language 'klingon'\. Give a code"):
        bring(saved / "full.pth", saved / "itos.pkl", language="klingon")


def test_the_same_again_changes_nothing(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact], said: io.StringIO
) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes((saved / "full.pth").read_bytes())
    first = bring(weights, saved / "itos.pkl")
    assert bring(weights, saved / "itos.pkl").manifest == first.manifest
    weights.unlink()
    assert bring(weights, saved / "itos.pkl").manifest == first.manifest  # it outlives its files
    assert said.getvalue().count("import_fastai: nothing changed") == 2
    with pytest.raises(InputError, match=r"made from something else: direction was fwd, now bwd\. Replace it with --f"):
        bring(saved / "full.pth", saved / "itos.pkl", direction="bwd")
    with pytest.raises(InputError, match=r"made from something else: its files differ"):
        bring(saved / "encoder.pth", saved / "itos.pkl")
    with pytest.raises(InputError, match=r"w\.pth is gone\. Give the path of a copy"):
        bring(weights, saved / "itos.pkl", direction="bwd", force=True)
    again = bring(saved / "full.pth", saved / "itos.pkl", direction="bwd", transductive=True, force=True)
    assert again.manifest.identity["direction"] == "bwd"
    assert again.manifest.metrics["transductive"] is True
    (again.path / "decoder.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"decoder\.safetensors has 7 bytes"):
        bring(saved / "full.pth", saved / "itos.pkl", direction="bwd", transductive=True)
    assert bring(saved / "full.pth", saved / "itos.pkl", direction="bwd", transductive=True, force=True)


def test_an_unfinished_training_is_not_thrown_away(
    saved: Path, tmp_path: Path, bring: Callable[..., Artifact]
) -> None:
    work, _ = open_partial(tmp_path / "lm", "0" * 64)
    checkpoint = work / "resume/checkpoints/checkpoint-00000500"
    checkpoint.mkdir(parents=True)
    with pytest.raises(InputError, match=r"lm has an unfinished training with 1 checkpoints\. Discard it with --force"):
        bring(saved / "full.pth", saved / "itos.pkl")
    assert checkpoint.exists()
    bring(saved / "full.pth", saved / "itos.pkl", force=True)
    assert not checkpoint.exists()


@pytest.fixture
def server(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The archive wt103-fwd, published by a server on this machine."""
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    files = {"wt103-fwd/lstm_fwd.pth": saved / "weights.pth", "wt103-fwd/itos_wt103.pkl": saved / "itos.pkl"}
    with Server(archive_of(tmp_path / "served.tgz", files).read_bytes()) as running:
        monkeypatch.setitem(PUBLISHED, "wt103-fwd", running.file_with_size("wt103-fwd.tgz"))
        yield running


def test_a_published_model_is_downloaded_once(
    server: Server, tmp_path: Path, bring: Callable[..., Artifact], said: io.StringIO
) -> None:
    server.cuts = 2
    lm = bring("wt103-fwd", direction=None)
    assert len(server.asked) == 3
    assert said.getvalue().count("trying again") == 2
    source = lm.manifest.source
    assert source["url"] == PUBLISHED["wt103-fwd"].url
    assert source["published"] == "wt103-fwd"
    (file,) = source["identity"]["files"]
    assert file == {"sha256": hashlib.sha256(server.content).hexdigest(), "size_bytes": len(server.content)}
    kept = tmp_path / "home/data/downloads/wt103-fwd.tgz"
    bring("wt103-fwd", direction="fwd", target=tmp_path / "other")  # lies there already
    kept.unlink()
    assert bring("wt103-fwd", direction=None).manifest == lm.manifest  # sealed: needs no source
    assert len(server.asked) == 3
    copy = bring("wt103-fwd", direction=None, local_copy=str(tmp_path / "served.tgz"))
    assert copy.manifest == lm.manifest


def test_what_is_not_as_published_is_refused(
    server: Server, saved: Path, tmp_path: Path, bring: Callable[..., Artifact]
) -> None:
    good = server.content
    server.content = good[:-1] + b"x" + good[-1:]
    with pytest.raises(InputError, match=r"not the published file: [\d,]+ bytes, published [\d,]+\)\. Fetch ht"):
        bring("wt103-fwd")
    server.content = b"\0" + good[1:]
    with pytest.raises(InputError, match=r"not the published file: MD5 of the start \w{32}, published \w{32}"):
        bring("wt103-fwd")
    assert [p.name for p in (tmp_path / "home/data/downloads").iterdir()] == [".lock"]
    with pytest.raises(InputError, match=r"full\.pth is not wt103-fwd\.tgz as published: .* name its path in place of"):
        bring("wt103-fwd", local_copy=str(saved / "full.pth"))
    with pytest.raises(InputError, match=r"There is no .*nowhere\. Give --source the path of wt103-fwd\.tgz"):
        bring("wt103-fwd", local_copy=str(tmp_path / "nowhere"))


def test_the_published_archives_are_fastais() -> None:
    from fastai.data.external import URLs

    assert {name: archive.url for name, archive in PUBLISHED.items()} == {
        "wt103-fwd": URLs.WT103_FWD, "wt103-bwd": URLs.WT103_BWD
    }


def test_a_run_starts_from_an_imported_model(saved: Path, tmp_path: Path, bring: Callable[..., Artifact]) -> None:
    lm = bring(saved / "full.pth", saved / "itos.pkl", target=tmp_path / "models/own model/lm-fwd")
    assert use_of(lm) == f"python -m pipeline run --run from-own-model --set 'inputs.start_lm={lm.path}'"
    table = tmp_path / "reviews.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for i in range(80):
            word = ("good", "dull")[i % 2]
            writer.writerow([f"A film , {word} ! {'b c d e f g'[i % 11 :]} . {i} x y z ?", word])
    result = CliRunner().invoke(app, [
        "run", "--recipe", "smoke", "--home", str(tmp_path), "--source", str(table), "--until", "finetune_lm",
        "--set", f"inputs.start_lm={lm.path}", "--set", "run.device=cpu", "--set", "run.precision=fp32",
        "--set", "tokenize_corpus.workers=1",
    ], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    made = tmp_path / "models/smoke/lm-fwd"
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["metrics"]["started_from"] == lm.manifest.fingerprint
    assert manifest["identity"].items() >= lm.manifest.identity.items()
    for name in ("vocabulary.json", "architecture.json", "tokenizer/tokenizer.json"):
        assert (made / name).read_bytes() == (lm.path / name).read_bytes()
    refused = CliRunner().invoke(app, [
        "finetune_lm", "--recipe", "smoke", "--home", str(tmp_path), "--run", "back", "--set", "run.direction=bwd",
        "--set", f"inputs.start_lm={lm.path}", "--set", f"inputs.ids={tmp_path / 'data/smoke/ids'}",
    ])
    assert refused.exit_code == 3
    assert "lm-fwd reads fwd, this run reads bwd" in refused.output


def test_limits_have_room_for_the_published_archives() -> None:
    for archive in PUBLISHED.values():
        size_bytes = archive.check.size_bytes
        assert size_bytes * 1.1 < fastai_files.FREE_BYTES + fastai_files.MAX_RATIO * size_bytes
