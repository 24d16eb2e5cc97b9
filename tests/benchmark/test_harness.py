"""Children take their turns one at a time, report their own memory, and fail alone."""

import io
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.benchmark.cases import Case
from pipeline.benchmark.figures import measure
from pipeline.benchmark.harness import CaseFailed, Lab
from pipeline.benchmark.sizes import TINY
from pipeline.progress import Reporter

HERE = Path(__file__).parent


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.syspath_prepend(str(HERE))
    with Lab.open(replace(TINY, forks=False), None, Reporter(io.StringIO())) as opened:
        yield opened


def case(unit: str = "documents/s", **sides: str) -> Case:
    named = {side: f"toy_sides:{function}" for side, function in sides.items()}
    return Case("toy", unit, "For tests.", sides=named, prepare="toy_sides:prepare", shared="toys")


def test_sides_work_in_turn_and_idle_ones_rest(lab: Lab) -> None:
    toy = case(ours="note", fastai="note")
    own: dict[str, Any] = {name: {"name": name, "units": 1} for name in toy.sides}
    found = lab.measure(toy, toy.sides, 3, own)
    order = (lab.folder / "toys" / "order.txt").read_text().splitlines()
    assert order == ["ours begins", "ours ends", "fastai begins", "fastai ends"] * 3
    idle = [report["idle_cpu_s"] for repeats in found.values() for report in repeats.more]
    assert max(idle) < 0.05, "a side that waits must not use the processor"
    assert [len(repeats.seconds) for repeats in found.values()] == [3, 3]


def test_memory_belongs_to_the_side_that_used_it(lab: Lab) -> None:
    result = measure(case(ours="small", fastai="large"), lab)
    assert result.peak_mb_ours is not None
    assert result.peak_mb_fastai is not None
    assert result.peak_mb_fastai - result.peak_mb_ours > 250
    assert not list(lab.folder.glob("toy-*/")), "what the sides wrote is gone"


def test_ratio_says_how_many_times_better_ours_is(lab: Lab) -> None:
    rate = measure(case(ours="large", fastai="small"), lab)
    assert (rate.ours, rate.fastai, rate.ratio) == pytest.approx((1 / 0.6, 1 / 1.8, 3.0))
    single = measure(case("ms", ours="large", fastai="small"), lab)
    assert (single.ours, single.fastai, single.ratio) == pytest.approx((200.0, 600.0, 3.0))
    assert single.more["p95_ours"] == pytest.approx(300.0)
    assert (lab.folder / "toys" / "prepared.txt").read_text() == "once\n"


def test_workers_of_a_side_start_as_its_users_have_them(lab: Lab) -> None:
    toy = case(fastai="start_method")
    found = lab.measure(toy, toy.sides, 1, {})
    assert found["fastai"].facts["start_method"] == multiprocessing.get_context().get_start_method()


def test_in_a_hurry_only_what_imports_fastai_anyway_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    toy = case(ours="modules", x4="modules", fastai="modules")
    with Lab.open(replace(TINY, forks=True), None, Reporter(io.StringIO())) as lab:
        found = lab.measure(toy, toy.sides, 1, {})
    assert {name: repeats.facts["fastai"] for name, repeats in found.items()} == {
        "ours": False, "x4": False, "fastai": True,
    }


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"ours": "refuse", "fastai": "small"}, "ours: These reviews cannot be read. Take others."),
        ({"ours": "small", "fastai": "die"}, "fastai ended with code 9: out of memory, goodbye"),
        ({"ours": "small", "fastai": "missing"}, "fastai: AttributeError: module 'toy_sides' has no attribute"),
    ],
    ids=["refuses", "dies", "is not there"],
)
def test_a_side_that_fails_is_named(lab: Lab, sides: dict[str, str], message: str) -> None:
    with pytest.raises(CaseFailed) as caught:
        measure(case(**sides), lab)
    assert str(caught.value).startswith(message)
    assert not multiprocessing.active_children()


def test_different_work_is_no_comparison(lab: Lab) -> None:
    toy = replace(case(ours="note", fastai="small"), parameters={"name": "n", "units": 2})
    with pytest.raises(CaseFailed, match=r"the sides did different work: 2 and 1 units"):
        measure(toy, lab)
