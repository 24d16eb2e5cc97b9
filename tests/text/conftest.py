"""Real reviews straight from the IMDB archive, and a run on a small corpus."""

import tarfile
from pathlib import Path

import pytest
from workshop import Workshop

N_REVIEWS = 500
N_MANY_REVIEWS = 2000


@pytest.fixture(scope="session")
def reviews(shared_data: Path) -> list[str]:
    """The first 500 reviews of the archive, in its order."""
    return first_reviews(shared_data, N_REVIEWS)


@pytest.fixture(scope="session")
def many_reviews(shared_data: Path) -> list[str]:
    """The first 2,000 reviews, for tests that may take long."""
    return first_reviews(shared_data, N_MANY_REVIEWS)


def first_reviews(shared_data: Path, n: int) -> list[str]:
    """The first `n` reviews of the archive."""
    texts: list[str] = []
    with tarfile.open(shared_data / "aclImdb_v1.tar.gz", "r|gz") as archive:
        for member in archive:
            if member.isfile() and member.name.count("/") == 3 and member.name.endswith(".txt"):
                stream = archive.extractfile(member)
                assert stream is not None
                texts.append(stream.read().decode("utf-8"))
                if len(texts) == n:
                    break
    return texts


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A run in a folder with a space in its name."""
    return Workshop(tmp_path / "a home")
