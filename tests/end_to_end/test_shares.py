"""Tokenizing in shares, by several jobs: the result is that of one job, byte for byte."""

import hashlib
import multiprocessing
from pathlib import Path

import pytest
from command_line import call, write_reviews
from filelock import FileLock

from pipeline.errors import UsageError
from pipeline.parts import Share

KINDS = {
    "word": ("tokenize_corpus.tokenizer=word",),
    "subword": ("tokenize_corpus.tokenizer=subword", "tokenize_corpus.vocab_size=90"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a corpus of several row groups, and of what one job makes of it with each tokenizer."""
    home = tmp_path_factory.mktemp("home")
    write_reviews(home / "reviews.csv", n=9000)
    for kind in KINDS:
        tokenize(home, kind, kind, command="run", more=("--until", "tokenize_corpus"))
    return home


def tokenize(
    home: Path, kind: str, run: str, command: str = "tokenize_corpus", more: tuple[str, ...] = (), *,
    exit_code: int = 0,
) -> str:
    settings = ("prepare_corpus.split_column=split", "tokenize_corpus.workers=1", *KINDS[kind])
    given = () if run == kind else ("--set", f"inputs.corpus={home / 'data' / kind / 'corpus'}")
    return str(call(
        command, "--recipe", "smoke", "--run", run, "--home", str(home), "--source", str(home / "reviews.csv"),
        *(word for setting in settings for word in ("--set", setting)), *given, *more, exit_code=exit_code,
    ).stderr)


def contents(home: Path, run: str) -> dict[str, str]:
    folder = home / "data" / run / "tokens"
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", [1, 3, 8])
def test_shares_put_together_are_what_one_job_makes(home: Path, kind: str, of: int) -> None:
    run = f"{kind}-{of}"
    for number in reversed(range(1, of + 1)):
        said = tokenize(home, kind, run, more=("--shard", f"{number}/{of}"))
        assert f"share {number}/{of} is made" in said
        assert ("training 90 unigram pieces" in said) == (kind == "subword" and number == of)  # the first to come
    assert not (home / "data" / run / "tokens").exists()
    assert "training" not in tokenize(home, kind, run)
    assert contents(home, run) == contents(home, kind)
    assert not list((home / "data" / run).glob(".tokens.*parts*"))
    assert "nothing changed" in tokenize(home, kind, run, more=("--shard", f"1/{of}"))


def test_a_missing_or_damaged_share_is_made_when_they_are_put_together(home: Path) -> None:
    tokenize(home, "word", "some", more=("--shard", "2/2"))
    (shard,) = list((home / "data/some").glob(".tokens.parts-*/pieces-*/000001.shard"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert "is damaged; set aside and made anew" in tokenize(home, "word", "some")
    assert contents(home, "some") == contents(home, "word")


def test_jobs_may_work_at_once_on_shares_and_on_the_whole(home: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    at_once = [("--shard", f"{number}/3") for number in (1, 2, 3)]
    jobs = [spawn.Process(target=tokenize, args=(home, "subword", "at-once", "tokenize_corpus", more))
            for more in (*at_once, ())]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0] * 4
    tokenize(home, "subword", "at-once")
    assert contents(home, "at-once") == contents(home, "subword")


def test_a_share_that_waits_for_the_pieces_stops_when_asked(home: Path) -> None:
    tokenize(home, "subword", "waits", more=("--shard", "1/2"))
    (parts,) = (home / "data/waits").glob(".tokens.parts-*")
    with FileLock(parts / ".tokenizer.lock"):
        said = tokenize(home, "subword", "waits", more=("--shard", "2/2", "--stop-after", "0"), exit_code=75)
    assert "share 2/2, was stopped by the limit of 0 minutes" in said
    tokenize(home, "subword", "waits", more=("--shard", "2/2"))


@pytest.mark.parametrize("option", ["--force", "--dry-run"])
def test_a_share_is_neither_forced_nor_rehearsed(home: Path, option: str) -> None:
    said = tokenize(home, "word", "word", more=("--shard", "1/2", option), exit_code=2)
    assert f"--shard and {option} exclude each other" in said


def test_tokens_that_the_recipe_names_have_no_shares(home: Path) -> None:
    given = ("--shard", "1/2", "--set", f"inputs.tokens={home / 'data/word/tokens'}")
    assert "tokenize_corpus has nothing to make" in tokenize(home, "word", "named", more=given, exit_code=2)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no share"):
        Share.parse(text)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_shares_of_the_imdb_archive_put_together_are_what_one_job_makes(shared_data: Path, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    source = ("--recipe", "imdb-cpu", "--source", str(shared_data / "aclImdb_v1.tar.gz"))
    call("run", *source, *home, "--run", "whole", "--until", "tokenize_corpus")
    for of in (1, 3, 8):
        share = (*source, *home, "--run", f"of-{of}", "--set", f"inputs.corpus={tmp_path / 'data/whole/corpus'}")
        for number in range(1, of + 1):
            call("tokenize_corpus", *share, "--shard", f"{number}/{of}")
        call("tokenize_corpus", *share)
        assert contents(tmp_path, f"of-{of}") == contents(tmp_path, "whole")
