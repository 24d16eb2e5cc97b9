"""One document under several tokenizers, side by side."""

import json
from pathlib import Path

import pytest
from command_line import call, write_reviews

TEXT = "The plot was WONDERFUL, the cast brilliant!!!"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a run that has a corpus."""
    home = tmp_path_factory.mktemp("home")
    call(
        "prepare_corpus", "--recipe", "smoke", "--source", str(write_reviews(home / "reviews.csv", n=300)), "--home",
        str(home), "--set", "prepare_corpus.split_column=split",
    )
    return home


def tokens(home: Path, *arguments: str, exit_code: int = 0) -> str:
    done = call("tokens", "--on", "smoke", "--home", str(home), *arguments, exit_code=exit_code)
    return done.stdout if exit_code == 0 else done.stderr


def test_more_pieces_make_fewer_tokens_and_each_view_spells_the_text(home: Path) -> None:
    found = json.loads(tokens(home, "--show", TEXT, "--pieces", "60,100", "--json"))
    assert [view["tokenizer"] for view in found] == ["word", "subword, 100 pieces", "subword, 60 pieces", "char"]
    counts = [view["n_tokens"] for view in found]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2] < counts[3]
    for view in found:
        assert view["n_tokens"] == len(view["tokens"])
        assert view["characters_per_token"] == round(len(TEXT) / len(view["tokens"]), 2)
        assert "xxbos" not in view["tokens"]
    assert found[0]["tokens"][:6] == ["xxmaj", "the", "plot", "was", "xxup", "wonderful"]


def test_table_and_picture(home: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(TEXT, encoding="utf-8")
    said = tokens(
        home, "--show", str(tmp_path / "one.txt"), "--pieces", "60", "--first", "3", "--plot", str(tmp_path / "p.svg")
    )
    assert "word:\n  xxmaj the plot ...\n" in said
    assert said.splitlines()[0].split() == ["tokens", "characters", "per", "token"]
    picture = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert all(name in picture for name in ("word", "subword, 60 pieces", "char", "characters per token"))


def test_without_a_text_it_is_the_first_document_and_sizes_that_cannot_be_are_left_out(home: Path) -> None:
    done = call("tokens", "--on", "smoke", "--home", str(home), "--pieces", "60,10000")
    assert "tokens: no 10,000 pieces: " in done.stderr
    assert "10,000" not in done.stdout
    assert "subword, 60 pieces" in done.stdout


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("--pieces", "60,3000000000"), 2, "--pieces 60,3000000000 has a size outside 1 to 1,000,000,000. Write --pieces "),
    (("--pieces", "many"), 2, "--pieces many is no list of numbers. Write --pieces 200,1000,10000."),
    (("--plot", "x.gif"), 2, "x.gif is neither .png nor .svg. Name the picture --plot FILE.png or FILE.svg."),
    (("--show", "none.txt"), 3, "--show none.txt cannot be read"),
    (("--show", " ", "--pieces", "60"), 4, "The text has no tokens."),
])
def test_what_cannot_be_shown(home: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    assert message in tokens(home, *arguments, exit_code=code)
