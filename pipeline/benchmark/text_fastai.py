"""Plain fastai's side of the text cases."""

import shutil

from fastai.data.transforms import get_text_files
from fastai.text.core import SubwordTokenizer, Tokenizer
from fastai.text.data import Numericalize
from fastcore.xtras import untar_dir

from pipeline.benchmark.text_data import ARCHIVE
from pipeline.benchmark.turns import Turns, Work
from pipeline.machine import usable_cores


def archive(turns: Turns, work: Work) -> None:
    """What untar_data does after its download, then every text file read."""
    source, target = work.shared / ARCHIVE, work.own / "unpacked"
    while True:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        turns.wait()
        folder = untar_dir(source, target)
        texts = [f.read_text(encoding="utf8") for f in get_text_files(folder, folders=["train", "test", "unsup"])]
        turns.stop(len(texts))


def tokenize(turns: Turns, work: Work) -> None:
    """tokenize_folder, then Numericalize over the files that it wrote; units are tokens."""
    while True:
        _prepare(turns, work, "word")
        turns.wait()
        tokens = _to_ids(work, "word", None)
        turns.stop(tokens)


def subword(turns: Turns, work: Work) -> None:
    """The same with SentencePiece, its training included; units are documents."""
    while True:
        _prepare(turns, work, "subword")
        shutil.rmtree(work.own / "pieces", ignore_errors=True)
        turns.wait()
        # A vocabulary size of its own makes both sides train the same number of pieces.
        _to_ids(work, "subword", SubwordTokenizer(vocab_sz=work.sizes.pieces, cache_dir=work.own / "pieces"))
        turns.stop(work.sizes.subword_documents)


def _prepare(turns: Turns, work: Work, name: str) -> None:
    if not (work.own / "few").exists():
        shutil.copytree(work.shared / "few" / "files", work.own / "few")
        _to_ids(work, "few", None)
        shutil.copytree(work.shared / name / "files", work.own / name)
    shutil.rmtree(work.own / f"{name}_tok", ignore_errors=True)


def _to_ids(work: Work, name: str, tokenizer: SubwordTokenizer | None) -> int:
    """Tokens of all files. As fastai's TextBlock.from_folder with dataloaders that read every document once."""
    made = Tokenizer.from_folder(work.own / name, tok=tokenizer, n_workers=usable_cores())
    numericalize = Numericalize()
    numericalize.setups(made)
    return sum(len(numericalize(made(file))) for file in get_text_files(work.own / name))

