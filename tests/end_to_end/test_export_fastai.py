"""Sealed language models written for fastai: fastai loads them with its own functions and puts out the same scores."""

import io
import json
import pickle
import pickletools
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, manifest, write_reviews
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.text.data import LMDataLoader
from fastai.text.learner import LMLearner, language_model_learner, text_classifier_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.text.models.core import get_language_model
from fastcore.xtras import load_pickle
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifact import Artifact, open_artifact
from pipeline.errors import InputError, UsageError
from pipeline.export.fastai import export_fastai
from pipeline.export.finding import find_model
from pipeline.import_fastai import ImportRequest, import_fastai
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.pickled_strings import read_string_list, write_string_list
from pipeline.model.torch_archive import write_tensors
from pipeline.model.weights import load_language_model
from pipeline.progress import Reporter
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.vocabulary import read_vocabulary

WORDS = [
    *"., !?'\"", "the", "was", "from", "to", "it", "i", "and", "even", "more", "so", "a", "film", "with", "my", "they",
    "were", "right", "found", "plot", "cast", "music", "ending", "story", "wonderful", "clever", "dull", "boring",
]
ITOS = [*SPECIAL_TOKENS, *WORDS]
SIZES = {"emb_sz": 16, "n_hid": 24, "n_layers": 2}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """wt103-fwd.tgz in small: a model that fastai built and saved, in a folder with its vocabulary."""
    folder = tmp_path_factory.mktemp("published") / "wt103-fwd"
    folder.mkdir()
    torch.manual_seed(2)
    model = get_language_model(AWD_LSTM, len(ITOS), {**awd_lstm_lm_config, **SIZES})
    torch.nn.init.normal_(model[0].encoder.weight)
    torch.nn.init.normal_(model[1].decoder.bias)
    torch.save({"model": model.state_dict(), "opt": {}}, folder / "lstm_fwd.pth")
    (folder / "itos_wt103.pkl").write_bytes(pickle.dumps(ITOS))
    path = folder.parent / "wt103-fwd.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "wt103-fwd")
    return path


@pytest.fixture(scope="module")
def imported(archive: Path) -> Artifact:
    return import_fastai(ImportRequest(str(archive)), archive.parent / "lm", Reporter(io.StringIO()))


def export(lm: Artifact, output: Path, **request: Any) -> tuple[list[Path], str, str]:
    """Paths, code and what was said."""
    said = io.StringIO()
    done = export_fastai(lm, output, request.pop("name", None), Reporter(said), **request)
    return list(done.paths), done.code, said.getvalue()


def data(vocabulary: list[str], folder: Path) -> DataLoaders:
    loader = LMDataLoader([torch.randint(9, len(vocabulary), (40,)) for _ in range(4)], bs=2, seq_len=8)
    dls = DataLoaders(loader, loader, path=folder)
    dls.vocab = vocabulary
    return dls


def learner(code: str, dls: DataLoaders) -> LMLearner:
    """What the lines that export prints make of `dls`."""
    names: dict[str, Any] = {
        "dls": dls, "AWD_LSTM": AWD_LSTM, "awd_lstm_lm_config": awd_lstm_lm_config,
        "language_model_learner": language_model_learner,
    }
    exec(code, names)
    found: LMLearner = names["learn"]
    return found


def scores_of(lm: Artifact, ids: torch.Tensor) -> torch.Tensor:
    """Scores of a sealed model for the tokens of its vocabulary."""
    model = build_language_model(Architecture.load(lm.file("architecture.json"))).eval()
    load_language_model(model, lm.path)
    with torch.no_grad():
        found: torch.Tensor = model(ids)[0][..., : len(read_vocabulary(lm.path))]
    return found


def assert_same_scores(lm: Artifact, theirs: Any) -> None:
    ids = torch.randint(9, len(read_vocabulary(lm.path)), (3, 14), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs.eval().reset()
        torch.testing.assert_close(theirs(ids)[0], scores_of(lm, ids), atol=1e-5, rtol=0)


def test_fastai_builds_a_learner_from_the_files(imported: Artifact, tmp_path: Path) -> None:
    paths, code, _ = export(imported, tmp_path / "out")
    assert [path.name for path in paths] == ["lm_fwd.pth", "lm_fwd_vocab.pkl", "lm_fwd_encoder.pth"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    assert load_pickle(paths[1]) == ITOS  # as fastai reads it
    learn = learner(code, data(ITOS, tmp_path))
    assert_same_scores(imported, learn.model)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)  # what was loaded trains


def test_fastai_matches_the_rows_to_another_vocabulary(imported: Artifact, tmp_path: Path) -> None:
    _, code, _ = export(imported, tmp_path)
    other = [*SPECIAL_TOKENS, "music", "zither", "the"]
    model = learner(code, data(other, tmp_path)).model
    rows = torch.load(tmp_path / "lm_fwd.pth", weights_only=True)["0.encoder.weight"]
    assert rows.shape[0] == len(ITOS)
    assert torch.equal(model[0].encoder.weight[9], rows[ITOS.index("music")])
    torch.testing.assert_close(model[0].encoder.weight[10], rows.mean(0))


def test_load_encoder_and_load_read_them(imported: Artifact, tmp_path: Path) -> None:
    export(imported, tmp_path / "models", name="mine")
    dls = data(ITOS, tmp_path)
    config = awd_lstm_lm_config | SIZES
    whole = language_model_learner(dls, AWD_LSTM, config=config, pretrained=False, path=tmp_path)
    whole.load("mine")
    assert_same_scores(imported, whole.model)
    encoder = language_model_learner(dls, AWD_LSTM, config=config, pretrained=False, path=tmp_path)
    encoder.load_encoder("mine_encoder")
    classifier = text_classifier_learner(
        dls, AWD_LSTM, config=awd_lstm_clas_config | SIZES, pretrained=False, n_out=2, path=tmp_path,
        loss_func=CrossEntropyLossFlat(),
    )
    classifier.load_encoder("mine_encoder")
    for name, tensor in whole.model[0].state_dict().items():
        assert torch.equal(encoder.model[0].state_dict()[name], tensor)
        assert torch.equal(classifier.model[0].module.state_dict()[name], tensor)


@pytest.mark.parametrize("changes", [{"tie_weights": False}, {"n_layers": 1}, {"n_layers": 3, "n_hid": 20}])
def test_other_shapes_and_directions(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.manual_seed(4)
    model = get_language_model(AWD_LSTM, len(ITOS), {**awd_lstm_lm_config, **SIZES, **changes})
    torch.save(model.state_dict(), tmp_path / "lstm_bwd.pth")
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps(ITOS))
    request = ImportRequest(str(tmp_path / "lstm_bwd.pth"), str(tmp_path / "itos.pkl"))
    lm = import_fastai(request, tmp_path / "lm", Reporter(io.StringIO()))
    paths, code, said = export(lm, tmp_path / "models")
    assert paths[0].name == "lm_bwd.pth"
    assert code.endswith("# dls made with backwards=True")
    assert ("load the model with learn.load" in said) == ("tie_weights" in changes)
    learn = learner(code, data(ITOS, tmp_path))
    learn.path = tmp_path
    learn.load("lm_bwd")
    assert_same_scores(lm, learn.model)


def test_an_archive_is_imported_fine_tuned_exported_and_loaded_back(archive: Path, tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    call("import-fastai", str(archive), "--run", "wt103", *home)
    reviews = write_reviews(tmp_path / "reviews.csv", 100)
    call(
        "run", "--recipe", "smoke", "--source", str(reviews), *home, "--until", "finetune_lm",
        "--set", f"inputs.start_lm={tmp_path / 'models/wt103/lm-fwd'}", "--set", "finetune_lm.vocabulary=match",
        "--set", "run.device=cpu", "--set", "run.precision=fp32", "--set", "tokenize_corpus.workers=1",
    )
    lm = open_artifact(tmp_path / "models/smoke/lm-fwd", "lm")
    assert lm.manifest.metrics["matched"]["rows"]["mean"]["types"] > 0
    done = call("export", "--to", "fastai", "--run", "smoke", "--output", str(tmp_path / "out"), *home)
    code = done.stdout.partition("import *):\n")[2]
    learn = learner(code, data(read_vocabulary(lm.path), tmp_path))
    assert_same_scores(lm, learn.model)
    call("import-fastai", str(tmp_path / "out/lm_fwd.pth"), str(tmp_path / "out/lm_fwd_vocab.pkl"), "--run", "b", *home)
    back = open_artifact(tmp_path / "models/b/lm-fwd", "lm")
    assert back.manifest.identity["vocabulary"] == lm.manifest.identity["vocabulary"]
    ids = torch.randint(9, len(read_vocabulary(lm.path)), (2, 10))
    torch.testing.assert_close(scores_of(back, ids), scores_of(lm, ids), atol=1e-6, rtol=0)
    pieces = ["--set", "tokenize_corpus.tokenizer=char", "--run", "char", "--until", "finetune_lm"]
    call("run", "--recipe", "smoke", "--source", str(reviews), *home, *pieces, "--set", "run.precision=fp32")
    said = call("export", "--run", "char", "--output", str(tmp_path / "char"), *home).output
    assert "fastai has no tokenizer that gives these char tokens" in said
    assert manifest(tmp_path / "models/char/lm-fwd")["metrics"]["matched"] is None


def test_the_same_again_gives_the_same_bytes_and_nothing_else_is_replaced(imported: Artifact, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in export(imported, tmp_path)[0]]
    assert [path.read_bytes() for path in export(imported, tmp_path)[0]] == first
    (tmp_path / "lm_fwd_vocab.pkl").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"lm_fwd_vocab\.pkl is there already and holds something else\..*--force"):
        export(imported, tmp_path)
    assert (tmp_path / "lm_fwd_vocab.pkl").read_bytes() == b"mine"
    assert not list(tmp_path.glob(".*"))
    export(imported, tmp_path, force=True)
    assert (tmp_path / "lm_fwd_vocab.pkl").read_bytes() == first[1]


def test_what_cannot_be_exported(imported: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'a/b' cannot name files"):
        export(imported, tmp_path, name="a/b")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file, not a folder\. Name another --output\."):
        export(imported, tmp_path / "file")
    with pytest.raises(UsageError, match=r"Give --lm FOLDER or --run NAME, one of them\."):
        find_model("lm", None, None, tmp_path)
    with pytest.raises(UsageError, match=r"Give --lm FOLDER or --run NAME, one of them\."):
        find_model("lm", tmp_path, "a", tmp_path)
    with pytest.raises(InputError, match=r"The run 'a' has no sealed language model in .*--lm .*models/a/lm-fwd or "):
        find_model("lm", None, "a", tmp_path)
    for direction in ("fwd", "bwd"):
        (tmp_path / "models/two").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"models/two/lm-{direction}").symlink_to(imported.path)
    with pytest.raises(UsageError, match=r"The run 'two' has two language models\. Name one: --lm .*lm-fwd or --lm"):
        find_model("lm", None, "two", tmp_path)
    assert find_model("lm", imported.path, None, tmp_path).manifest == imported.manifest


@settings(max_examples=50)
@given(strings=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_written_list_is_what_pickle_reads_and_names_nothing(
    strings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("list") / "itos.pkl"
    write_string_list(path, strings)
    assert load_pickle(path) == strings
    assert read_string_list(path) == strings
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(path.read_bytes())}
    assert opcodes <= {"PROTO", "EMPTY_LIST", "MARK", "BINUNICODE", "APPENDS", "STOP"}


def test_written_tensors_load_in_every_way_torch_has(tmp_path: Path) -> None:
    shared, other = torch.randn(5, 3), torch.randn(7)
    tensors = {"a": shared, "ä": other, "again": shared}
    write_tensors(tmp_path / "w.pth", tensors)
    ways: list[Callable[[], Any]] = [
        lambda: torch.load(tmp_path / "w.pth", weights_only=True),
        lambda: torch.load(tmp_path / "w.pth", weights_only=False),
        lambda: torch.load(tmp_path / "w.pth", weights_only=True, mmap=True),
    ]
    for load in ways:
        found = load()
        assert list(found) == list(tensors)
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        assert found["a"].data_ptr() == found["again"].data_ptr()
        assert found["ä"].data_ptr() % 64 == 0
    whole = io.BytesIO()
    torch.save(tensors, whole)
    theirs = torch.load(io.BytesIO(whole.getvalue()), weights_only=True)
    assert json.dumps([t.tolist() for t in theirs.values()]) == json.dumps([t.tolist() for t in tensors.values()])
