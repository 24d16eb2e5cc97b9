"""Hostile files given to import-fastai: no code of theirs runs, nothing is written outside, all are refused."""

import copy
import gzip
import io
import os
import pickle
import random
import struct
import tarfile
import tempfile
import traceback
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastcore.foundation import L
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.import_fastai import ImportRequest, import_fastai
from pipeline.model import fastai_files, fastai_weights, pickled_strings
from pipeline.model.fastai_weights import read_weights
from pipeline.model.pickled_strings import read_string_list
from pipeline.progress import Reporter
from pipeline.text.rules import SPECIAL_TOKENS

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
VOCABULARY = [*SPECIAL_TOKENS, "one", "two", "three"]


class Evil:
    """Unpickling it creates the file `mark`."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that exists once hostile code has run."""
    return tmp_path / "code-has-run"


def state() -> dict[str, torch.Tensor]:
    """A tiny language model under fastai's names."""
    torch.manual_seed(0)
    v, d, h = len(VOCABULARY), 4, 6
    shapes = {"0.encoder.weight": (v, d), "1.decoder.bias": (v,)}
    for i, (n_in, n_out) in enumerate([(d, h), (h, d)]):
        shapes |= {
            f"0.rnns.{i}.weight_hh_l0_raw": (4 * n_out, n_out), f"0.rnns.{i}.module.weight_ih_l0": (4 * n_out, n_in),
            f"0.rnns.{i}.module.bias_ih_l0": (4 * n_out,), f"0.rnns.{i}.module.bias_hh_l0": (4 * n_out,),
        }
    tensors = {name: torch.rand(shape) for name, shape in shapes.items()}
    return {**tensors, "0.encoder_dp.emb.weight": tensors["0.encoder.weight"],
            "1.decoder.weight": tensors["0.encoder.weight"]}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A good .pth and a good .pkl."""
    weights, itos = tmp_path / "w.pth", tmp_path / "itos.pkl"
    torch.save(state(), weights)
    itos.write_bytes(pickle.dumps(VOCABULARY))
    return weights, itos


@pytest.fixture
def refused(tmp_path: Path, mark: Path) -> Callable[..., None]:
    """refused(message, source, vocabulary): the import ends in an InputError and leaves no trace."""

    def check(message: str, source: Path, vocabulary: Path | None = None) -> None:
        before = {p: p.stat().st_size for p in tmp_path.rglob("*")}
        request = ImportRequest(str(source), str(vocabulary) if vocabulary else None, direction="fwd")
        with pytest.raises(InputError, match=message):
            import_fastai(request, tmp_path / "models/lm", Reporter(io.StringIO()))
        after = {p: p.stat().st_size for p in tmp_path.rglob("*")}
        left = {p.relative_to(tmp_path).as_posix() for p in after if before.get(p) != after[p] and p.is_file()}
        assert left <= {"models/.lm.lock"}
        assert not mark.exists()

    return check


def test_the_good_pair_is_taken(pair: tuple[Path, Path], tmp_path: Path) -> None:
    request = ImportRequest(*map(str, pair), direction="fwd")
    assert import_fastai(request, tmp_path / "lm", Reporter(io.StringIO())).manifest.metrics["vocabulary"] == 12


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def dumped(value: Any, protocol: int) -> bytes:
    return pickle.dumps(value, protocol)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.sampled_from(PROTOCOLS))
def test_lists_of_strings_are_read_as_pickle_reads_them(strings: list[str], protocol: int) -> None:
    assert read(dumped(strings, protocol)) == strings


def read(data: bytes) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".pkl") as stream:
        stream.write(data)
        stream.flush()
        return read_string_list(Path(stream.name))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_large_list_with_repeated_strings(protocol: int) -> None:
    n = 60_000 if protocol == pickle.DEFAULT_PROTOCOL else 5_000  # the first is the size of fastai's vocabularies
    strings = [f"token {i} ä" for i in range(n)] + ["xxfake"] * 1000 + ["x" * 70_000]
    assert read(dumped(strings, protocol)) == strings
    python_pickler = io.BytesIO()
    pickle._Pickler(python_pickler, protocol).dump(strings)  # type: ignore[attr-defined]
    assert read(python_pickler.getvalue()) == strings
    unframed = io.BytesIO()
    fast = pickle.Pickler(unframed, protocol)
    fast.fast = True  # writes no memo
    fast.dump(strings)
    assert read(unframed.getvalue()) == strings


@settings(max_examples=300)
@given(st.binary(max_size=60), st.sampled_from(PROTOCOLS))
def test_any_bytes_are_a_list_of_strings_or_refused(data: bytes, protocol: int) -> None:
    for content in (data, dumped(["a", "b"], protocol)[:-2] + data, data + dumped(["a"], protocol)):
        try:
            found = read(content)
        except InputError:
            continue
        assert all(type(token) is str for token in found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: [e], lambda e: [*VOCABULARY, e], lambda e: {"itos": e}])
def test_a_vocabulary_that_calls_a_program(
    pair: tuple[Path, Path], mark: Path, refused: Callable[..., None], wrap: Callable[[Any], Any], protocol: int
) -> None:
    pair[1].write_bytes(dumped(wrap(Evil(mark)), protocol))
    refused(r"itos\.pkl holds .*, not a plain list of strings\. Only where you trust the file, make a plain", *pair)


HOSTILE = {
    "global": b"cos\nsystem\n.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "reduce": b"cos\nsystem\n(X\x04\x00\x00\x00truetR.",
    "newobj": b"\x80\x02cos\nsystem\n)\x81.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "persistent id": b"Pname\n.",
    "binary persistent id": b"X\x01\x00\x00\x00aQ.",
    "extension": b"\x82\x01.",
    "build": b"]}b.",
    "python 2 string": b"(lp0\nS'word'\np1\na.",
    "bytes": b"]C\x01aa.",
    "number": b"]K\x01a.",
    "tuple": b"(X\x01\x00\x00\x00at.",
    "dictionary": b"}.",
    "set": b"\x80\x04\x8f.",
    "list in a list": b"]]a.",
    "itself": b"]q\x00h\x00a.",
    "string": b"X\x01\x00\x00\x00a.",
    "two lists": b"]].",
    "nothing": b".",
    "open mark": b"](.",
    "append to a string": b"X\x01\x00\x00\x00aX\x01\x00\x00\x00ba.",
    "buffer": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_every_other_instruction_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"holds .*, not a plain list of strings|is damaged or no pickle"):
        read(data)


DAMAGED = {
    "empty": b"", "no pickle": b"<html>", "zip": b"PK\x03\x04", "no stop": b"]", "empty stack": b"a.",
    "unknown memo": b"]h\x07a.", "mark that is not there": b"]e.", "half a string": b"]X\xff\x00\x00\x00abc",
    "claims 2**62 bytes": b"\x80\x04]\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "claims 2**64 - 1 bytes": b"\x80\x04]\x8d" + b"\xff" * 8 + b"abc.",
    "no utf-8": b"]X\x01\x00\x00\x00\xffa.",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_vocabulary_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"is damaged or no pickle: .+\. Fetch or save it again\."):
        read(data)


def test_truncated_vocabularies_are_refused() -> None:
    for protocol in PROTOCOLS:
        whole = dumped(VOCABULARY, protocol)
        for end in range(len(whole)):
            with pytest.raises(InputError):
                read(whole[:end])


def test_a_frame_or_memo_number_takes_no_memory() -> None:
    assert read(b"\x80\x04\x95" + struct.pack("<Q", 10**18) + b"].") == []
    assert read(b"]r\xff\xff\xff\xff(X\x01\x00\x00\x00ae.") == ["a"]


def test_a_billion_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = tmp_path / "itos.pkl"
    with huge.open("wb") as stream:
        stream.truncate(2 * 10**9)  # two bytes an entry; takes no room on the disk
    with pytest.raises(InputError, match=r"itos\.pkl has 2,000,000,000 bytes; no vocabulary has more than 67,108,864"):
        read_string_list(huge)
    monkeypatch.setattr(pickled_strings, "MAX_STRINGS", 1000)
    with pytest.raises(InputError, match=r"more than 1,000 entries, not a plain list of strings"):
        read(b"](X\x01\x00\x00\x00aq\x01" + b"h\x01" * 2000 + b"e.")
    with pytest.raises(InputError, match=r"more than 1,000 entries"):
        read(b"]X\x01\x00\x00\x00aq\x01a" + b"h\x01a" * 2000 + b".")
    with pytest.raises(InputError, match=r"more than 1,000 entries"):
        read(b"]" * 2000 + b".")


def test_a_long_string_listed_often_takes_no_memory() -> None:
    text = "x" * 1_000_000
    data = b"](X" + struct.pack("<I", len(text)) + text.encode() + b"q\x01" + b"h\x01" * 500 + b"e."
    tracemalloc.start()
    try:
        assert read(data) == [text] * 501
        assert tracemalloc.get_traced_memory()[1] < 20 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("value", "named"),
    [(L(VOCABULARY), r"fastcore\.foundation\.L"), (np.array(VOCABULARY), r"numpy\."), ({"a": 1}, r"EMPTY_DICT")],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_collections_are_named_and_can_be_converted(value: Any, named: str, protocol: int) -> None:
    with pytest.raises(InputError, match=rf"holds .*{named}.*pickle\.dump\(\[str\(token\) for token in vocabulary\]"):
        read(dumped(value, protocol))
    assert read(dumped([str(token) for token in value], protocol)) == list(value)  # as the message advises


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InputError, match=r"text that is no Unicode \(surrogates not allowed\)"):
        read(dumped(["a", "\ud800"], 4))


# --- the weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: e, lambda e: {"model": e}, lambda e: {"model": state(), "opt": e},
        lambda e: {**state(), "0.extra": e}, lambda e: {"model": {**state(), "x": torch.ones(1), e: 1}, "opt": {}},
    ],
)
def test_weights_that_call_a_program(
    pair: tuple[Path, Path], mark: Path, refused: Callable[..., None], wrap: Callable[[Any], Any], new_format: bool
) -> None:
    torch.save(wrap(Evil(mark)), pair[0], _use_new_zipfile_serialization=new_format)
    refused(r"w\.pth is damaged or holds more than tensors: Trying to load unsupported GLOBAL posix\.system", *pair)


def test_a_bare_pickle_or_a_whole_module_in_place_of_weights(
    pair: tuple[Path, Path], mark: Path, refused: Callable[..., None]
) -> None:
    for protocol in PROTOCOLS:
        pair[0].write_bytes(dumped(Evil(mark), protocol))
        refused(r"w\.pth is damaged or holds more than tensors", *pair)
    torch.save(torch.nn.Linear(2, 2), pair[0])
    refused(r"holds more than tensors: Unsupported global: GLOBAL torch\.nn\.modules\.linear\.Linear", *pair)


@pytest.mark.parametrize("name", ["fastcore.foundation L", "numpy dtype", "numpy.core.multiarray scalar"])
def test_what_stands_for_the_optimizer_does_nothing(pair: tuple[Path, Path], name: str) -> None:
    """These names are allowed, and are never those objects: whatever is done with them is lost."""
    module, attribute = name.split()
    opt = b"c%b\n%b\n(X\x04\x00\x00\x00truetR}X\x05\x00\x00\x00itemsX\x01\x00\x00\x00xsb" % (
        module.encode(), attribute.encode()
    )
    rewrite(pair[0], lambda n, x: x[:-1].replace(x[2:-1], b"}(X\x05\x00\x00\x00model" + x[2:-1]
                                                 + b"X\x03\x00\x00\x00opt" + opt + b"u") + b"."
            if n.endswith("data.pkl") else x)
    before = torch.serialization.get_safe_globals()
    assert set(read_weights(pair[0])) == set(state())
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_what_other_packages_allow_is_not_allowed(pair: tuple[Path, Path], refused: Callable[..., None]) -> None:
    frame = traceback.FrameSummary("/dev/zero", 1, "f", lookup_line=False)  # would be read when it is built
    with torch.serialization.safe_globals([traceback.FrameSummary]):
        torch.save({"model": state(), "opt": frame}, pair[0])
        refused(r"holds more than tensors: Unsupported global: GLOBAL traceback\.FrameSummary", *pair)
        assert traceback.FrameSummary in torch.serialization.get_safe_globals()


def rewrite(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Write a .pth again with its records changed."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(pair: tuple[Path, Path], refused: Callable[..., None]) -> None:
    rewrite(pair[0], lambda n, x: b"\0" * 10**8 if n.endswith("data/0") else x, zipfile.ZIP_DEFLATED)
    assert pair[0].stat().st_size < 10**6
    refused(r"w\.pth unpacks to more than its size; a file saved by torch does not", *pair)


def test_records_that_share_their_bytes_are_refused(pair: tuple[Path, Path], refused: Callable[..., None]) -> None:
    with zipfile.ZipFile(pair[0], "w") as archive:
        archive.writestr("w/data/0", b"\0" * 10_000)
        for i in range(1, 50):
            again = copy.copy(archive.filelist[0])
            again.filename = f"w/data/{i}"
            archive.filelist.append(again)  # the list of contents names the same bytes 50 times
    refused(r"w\.pth unpacks to more than its size", *pair)


def test_weights_cut_anywhere_are_refused(pair: tuple[Path, Path]) -> None:
    for new_format in (True, False):
        torch.save(state(), pair[0], _use_new_zipfile_serialization=new_format)
        whole = pair[0].read_bytes()
        for end in sorted(random.Random(1).sample(range(len(whole)), 64)):
            pair[0].write_bytes(whole[:end])
            with pytest.raises(InputError, match=r"w\.pth (is (truncated|damaged)|holds no model)"):
                read_weights(pair[0])


def test_no_flipped_byte_of_a_tensor_is_read(pair: tuple[Path, Path]) -> None:
    good, whole = state(), pair[0].read_bytes()
    rng = random.Random(2)
    read_anyway = 0
    for _ in range(200):
        at = rng.randrange(len(whole))
        pair[0].write_bytes(whole[:at] + bytes([whole[at] ^ rng.randrange(1, 256)]) + whole[at + 1 :])
        try:
            found = read_weights(pair[0])
        except InputError:
            continue
        read_anyway += 1  # the byte belongs to the zip archive's padding or dates
        assert {n: t.tolist() for n, t in found.items()} == {n: t.tolist() for n, t in good.items()}
    assert read_anyway < 150


def test_a_packing_that_the_archive_does_not_have_is_refused(
    pair: tuple[Path, Path], refused: Callable[..., None]
) -> None:
    whole = pair[0].read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for method in (8, 12, 14):  # deflate, bzip2, LZMA, of bytes that are stored as they are
        pair[0].write_bytes(whole[: entry + 10] + bytes([method]) + whole[entry + 11 :])
        refused(r"w\.pth is (truncated or )?damaged", *pair)


@pytest.mark.parametrize("new_format", [True, False])
def test_tensors_that_claim_more_than_there_is(
    pair: tuple[Path, Path], refused: Callable[..., None], new_format: bool
) -> None:
    torch.save({**state(), "0.encoder.weight": torch.zeros(1).expand(10**6, 10**6)}, pair[0],
               _use_new_zipfile_serialization=new_format)
    refused(r"w\.pth: its tensors claim [\d,]+ bytes, the file has [\d,]+\.", *pair)


def test_a_storage_larger_than_its_record(pair: tuple[Path, Path], refused: Callable[..., None]) -> None:
    torch.save({"0.encoder.weight": torch.rand(5)}, pair[0])
    rewrite(pair[0], lambda n, x: x.replace(b"K\x05tq", b"J\xff\xff\xff\x7ftq") if n.endswith("data.pkl") else x)
    refused(r"w\.pth is damaged or holds more than tensors: record size \(20 bytes\) does not match", *pair)


ODD_TENSORS = {
    "sparse": torch.eye(3).to_sparse(), "on no device": torch.ones(3, device="meta"), "of no shape": torch.tensor(1.0),
    "of truths": torch.ones(3, dtype=torch.bool), "complex": torch.ones(3, dtype=torch.complex64),
    "empty": torch.ones(0, 4),
}


@pytest.mark.parametrize("tensor", ODD_TENSORS.values(), ids=ODD_TENSORS)
def test_odd_tensors(pair: tuple[Path, Path], refused: Callable[..., None], tensor: torch.Tensor) -> None:
    torch.save({**state(), "0.encoder.weight": tensor}, pair[0])
    refused(r"w\.pth: tensor 0\.encoder\.weight is no plain tensor of real numbers", *pair)


def test_the_size_of_a_file_of_weights_is_limited(
    pair: tuple[Path, Path], refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastai_weights, "MAX_BYTES", 1000)
    refused(r"w\.pth has [\d,]+ bytes; import-fastai reads at most 1,000\.", *pair)


def test_a_torchscript_archive(pair: tuple[Path, Path], refused: Callable[..., None]) -> None:
    with zipfile.ZipFile(pair[0], "a") as archive:
        archive.writestr("w/constants.pkl", b"\x80\x02).")
    refused(r"w\.pth is damaged or holds more than tensors: Cannot use ``weights_only=True`` with TorchScript", *pair)


def test_the_oldest_format_of_torch_which_is_unpacked_to_disk(
    pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., None]
) -> None:
    with tarfile.open(pair[0], "w:") as archive:
        for name in ("storages", "tensors", "pickle", "../outside"):
            member = tarfile.TarInfo(name)
            member.size = 8
            archive.addfile(member, io.BytesIO(b"\0" * 8))
    refused(r"w\.pth is damaged or holds more than tensors: Cannot use ``weights_only=True`` with files saved", *pair)
    assert not (tmp_path.parent / "outside").exists()


# --- the archive ------------------------------------------------------------------------------------------------------


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def write_archive(path: Path, pair: tuple[Path, Path], *extra: tuple[tarfile.TarInfo, bytes]) -> Path:
    good = [entry("m/lstm_fwd.pth", pair[0].read_bytes()), entry("m/itos.pkl", pair[1].read_bytes())]
    with tarfile.open(path, "w:gz") as archive:
        for member, content in (*extra, *good):
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (entry("../../outside.pth", b"x"), r"unsafe name '\.\./\.\./outside\.pth'"),
        (entry("m/../../outside.pkl", b"x"), r"unsafe name 'm/\.\./\.\./outside\.pkl'"),
        (entry("/tmp/outside.pth", b"x"), r"unsafe name '/tmp/outside\.pth'"),
        (entry("m/a.pth", type=tarfile.SYMTYPE, linkname="/etc/passwd"), r"'m/a\.pth', which is no regular file"),
        (entry("m", type=tarfile.SYMTYPE, linkname="/tmp"), r"'m', which is no regular file"),
        (entry("m/a.pth", type=tarfile.LNKTYPE, linkname="../../x"), r"'m/a\.pth', which is no regular file"),
        (entry("m/a.pth", type=tarfile.CHRTYPE), r"'m/a\.pth', which is no regular file"),
        (entry("m/a.pth", type=tarfile.FIFOTYPE), r"'m/a\.pth', which is no regular file"),
    ],
)
def test_archives_that_reach_outside(
    pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., None], extra: Any, message: str
) -> None:
    refused(message, write_archive(tmp_path / "a.tgz", pair, extra))


def test_names_inside_an_archive_are_not_used(pair: tuple[Path, Path], tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, path in (("m/$(touch y)\n';.pth", pair[0]), ("resume/fingerprint.pkl", pair[1])):
            member, content = entry(name, path.read_bytes())
            tar.addfile(member, io.BytesIO(content))
    lm = import_fastai(ImportRequest(str(archive), direction="fwd"), tmp_path / "m/lm", Reporter(io.StringIO()))
    assert {p.name for p in tmp_path.iterdir()} == {"a.tgz", "w.pth", "itos.pkl", "m"}
    assert {p.name for p in lm.path.iterdir()} == {
        "architecture.json", "decoder.safetensors", "encoder.safetensors", "manifest.json", "tokenizer",
        "vocabulary.json",
    }


def test_archives_that_unpack_to_too_much(
    pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastai_files, "FREE_BYTES", 10**6)
    zeros = write_archive(tmp_path / "a.tgz", pair, entry("m/readme.txt", b"\0" * 10**7))
    refused(r"a\.tgz unpacks to more than 1,[\d,]+ bytes\. If you trust it, unpack it", zeros)
    claim, _ = entry("m/a.pth")
    claim.size = 2**40
    claimed = tmp_path / "b.tgz"
    claimed.write_bytes(gzip.compress(claim.tobuf(tarfile.GNU_FORMAT)))
    refused(r"b\.tgz unpacks to more than 1,[\d,]+ bytes", claimed)
    claim.type, claim.name = tarfile.XHDTYPE, "header"
    claimed.write_bytes(gzip.compress(claim.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10**7))
    refused(r"b\.tgz unpacks to more than 1,[\d,]+ bytes", claimed)
    many = write_archive(tmp_path / "c.tgz", pair, *(entry(f"m/{i}") for i in range(fastai_files.MAX_MEMBERS + 1)))
    refused(r"c\.tgz holds more than 1,000 members", many)


def test_damaged_archives(pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., None]) -> None:
    archive = write_archive(tmp_path / "a.tgz", pair)
    whole = archive.read_bytes()
    for end in [0, 1, 9, 10, *range(11, len(whole), len(whole) // 20)]:
        archive.write_bytes(whole[:end])
        refused(r"a\.tgz (is truncated or no \.tgz archive: .+\.|holds 0 files \.pth)", archive)
    for at in range(20, len(whole), len(whole) // 20):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        refused(r"a\.tgz|model\.p", archive)
    archive.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    refused(r"a\.tgz is truncated or no \.tgz archive: CRC check failed", archive)
    archive.write_bytes(b"no archive")
    refused(r"a\.tgz is truncated or no \.tgz archive: Not a gzipped file", archive)


@pytest.mark.parametrize("headers", [
    {"GNU.sparse.map": "a,b"}, {"GNU.sparse.size": "x"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
])
def test_archives_with_headers_that_are_no_numbers(
    pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., None], headers: dict[str, str]
) -> None:
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("m/w.pth")
        member.pax_headers, member.size = headers, 3
        tar.addfile(member, io.BytesIO(b"abc"))
    refused(r"a\.tgz (is truncated or no \.tgz archive|holds 'm/w\.pth', which is no regular file)", archive)


def test_hostile_files_inside_an_archive(
    pair: tuple[Path, Path], mark: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    good = pair[1].read_bytes()
    pair[1].write_bytes(dumped([*VOCABULARY, Evil(mark)], 4))
    refused(r"model\.pkl holds an object of '(posix|nt)\.system'", write_archive(tmp_path / "a.tgz", pair))
    pair[1].write_bytes(good)
    torch.save({"model": state(), "opt": Evil(mark)}, pair[0])
    refused(r"model\.pth is damaged or holds more than tensors", write_archive(tmp_path / "b.tgz", pair))
