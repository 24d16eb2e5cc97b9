"""What the endpoints answer is what the models say, whoever asks at the same time."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import Served, running
from tiny_classifiers import LABELS, WORDS, seal_classifier
from torch import Tensor

from pipeline.errors import InputError, UsageError
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.inference.classifier import Classifier
from pipeline.inference.generate import Sampling, generate
from pipeline.inference.pooling import Rows
from pipeline.serving.guard import SECURITY_HEADERS
from pipeline.serving.limits import MAX_TEXTS, Limits
from pipeline.serving.models import Models, names
from pipeline.settings import PredictionSettings, RunSettings

FP32 = RunSettings(device="cpu", precision="fp32")
TEXTS = ["A warm, witty film!", "dull", "", "the " * 300, "naïve\u2028 \U0001f600 \x00"]


def counted(server: Served) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(server.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families for sample in family.samples if family.name.startswith("staged_ulmfit")
    }


def test_predictions_are_those_of_the_classifier(server: Served, models: Models) -> None:
    for name, bundle in models.classifiers.items():
        answer = server.post("/predict", {"texts": TEXTS, "model": name}).json()
        assert answer["model"] == name
        for found, expected in zip(answer["predictions"], bundle.predict(TEXTS), strict=True):
            assert list(found["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
            assert found["label"] == LABELS[int(expected.argmax())]
            assert found["probability"] == max(found["probabilities"].values())
    assert server.post("/predict", {"texts": ["dull"]}).json()["model"] == "one"


def test_many_clients_get_their_own_answers_and_are_computed_together(server: Served, models: Models) -> None:
    rng = np.random.default_rng(0)
    asked = [
        (["one", "two"][i % 2], [" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(rng.integers(1, 4))])
        for i in range(120)
    ]
    before = counted(server)
    with ThreadPoolExecutor(24) as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        answers = list(pool.map(lambda a: client.post("/predict", json={"model": a[0], "texts": a[1]}).json(), asked))
    for (name, texts), answer in zip(asked, answers, strict=True):
        assert answer["model"] == name
        expected = models.classifiers[name].predict(texts)
        found = [list(p["probabilities"].values()) for p in answer["predictions"]]
        assert found == [pytest.approx(row.tolist(), abs=1e-6) for row in expected]
    after = counted(server)
    n_texts, n_batches = (after[key] - before.get(key, 0) for key in (
        ("staged_ulmfit_batch_texts_sum",), ("staged_ulmfit_batch_texts_count",)))
    assert n_texts == sum(len(texts) for _, texts in asked)
    assert n_batches < len(asked)


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_explanations_name_words_and_method(server: Served, method: str) -> None:
    body = {"text": "A warm frobnicating film", "method": method, "label": "negative", "model": "two"}
    answer = server.post("/explain", body).json()
    assert [word["text"] for word in answer["words"]] == ["a", "warm", "frobnicating", "film"]
    assert answer["explained"] == "negative"
    assert method.split(maxsplit=1)[0] in answer["method"]
    assert answer["label"] in LABELS


def test_generated_text_is_that_of_the_language_model(server: Served, models: Models) -> None:
    assert models.language_model is not None
    name, bundle = models.language_model
    answer = server.post("/generate", {"prompt": "The film", "max_tokens": 12, "samples": 3, "seed": 7}).json()
    *_, expected = generate(bundle, "The film", Sampling(max_tokens=12, seed=7), 3)
    assert answer["model"] == name
    assert [sample["text"] for sample in answer["samples"]] == [sample.text for sample in expected]


def test_what_is_served_is_told(server: Served) -> None:
    told = server.get("/models").json()
    assert [(c["name"], c["labels"], c["direction"], c["precision"]) for c in told["classifiers"]] == [
        ("one", list(LABELS), "fwd", "fp32"), ("two", list(LABELS), "bwd", "fp32")
    ]
    assert told["language_model"] == {"name": "one", "direction": "fwd"}
    assert server.get("/health").json() == {"status": "ok"}


def test_browsers_are_told_to_be_careful(server: Served) -> None:
    for response in (server.get("/"), server.get("/health"), server.post("/predict", {}), server.get("/nothing")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "server" not in response.headers
    assert server.get("/nothing").json() == {"error": "There is nothing here; /openapi.json tells what there is."}
    wrong = server.get("/predict")
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Only POST is answered here."})


def test_without_a_language_model_nothing_is_generated(models: Models) -> None:
    with running(replace(models, language_model=None)) as server:
        assert server.post("/generate", {"prompt": "a"}).status_code == 404
        assert "/generate" not in server.get("/openapi.json").json()["paths"]
        assert server.get("/models").json()["language_model"] is None


def test_a_key_is_asked_for_where_it_matters(models: Models) -> None:
    key = "correct-horse-battery"
    with running(models, key=key) as server:
        for path in ("/", "/page.js", "/page.css", "/icon.svg", "/health", "/openapi.json"):
            assert server.get(path).status_code == 200
        assert server.get("/openapi.json").json()["components"]["securitySchemes"]
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": key}, {"Authorization": f"Basic {key}"},
                      {"Authorization": "Bearer"}, {"Authorization": f"Bearer {key}é"}):
            headers = {name: value.encode() for name, value in given.items()}
            for response in (
                server.get("/models", headers=headers), server.get("/metrics", headers=headers),
                server.post("/predict", {"texts": ["a"]}, headers=headers), server.get("/x", headers=headers),
            ):
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.json() == {"error": "This server needs a key: Authorization: Bearer KEY."}
        good = {"Authorization": f"Bearer {key}"}
        assert server.post("/predict", {"texts": ["a"]}, headers=good).status_code == 200


@dataclass
class Gate:
    """Where a classifier waits before it computes anything."""

    reached: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)
    """The work was ended before it was done."""


def held(models: Models, gate: Gate) -> Models:
    """The first classifier alone, held at a gate."""
    bundle = models.classifiers["one"]
    classifier = bundle.classifier
    forward = classifier.model.forward

    class Held(Classifier):
        def forward(self, rows: Rows, step_tokens: int, between_steps: Callable[[], None] = lambda: None) -> Tensor:
            gate.reached.set()
            assert gate.open.wait(60)
            try:
                return forward(rows, step_tokens, between_steps)
            except Exception:
                gate.given_up.set()
                raise

    model = Held(classifier.model.encoder, classifier.model.head, classifier.model.shape)
    return Models({"one": replace(bundle, classifier=replace(classifier, model=model))})


@pytest.mark.parametrize(
    ("path", "body", "n_waiting"), [("/predict", {"texts": ["a film"]}, 2), ("/explain", {"text": "a film"}, 0)]
)
def test_too_many_are_sent_away_and_the_others_answered(
    models: Models, path: str, body: object, n_waiting: int
) -> None:
    gate = Gate()
    with running(held(models, gate), Limits(waiting=2, slow_waiting=1)) as server, ThreadPoolExecutor(12) as pool:
        first = pool.submit(server.post, path, body)
        assert gate.reached.wait(60)
        others = [pool.submit(server.post, path, body) for _ in range(10)]
        refused = [answer.result() for answer in islice(as_completed(others), 10 - n_waiting)]
        gate.open.set()
        for answer in refused:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json() == {"error": "Too many requests wait; try again."}
        assert first.result().status_code == 200
        assert sum(answer.result().status_code == 200 for answer in others) == n_waiting
        assert server.post(path, body).status_code == 200


def test_what_takes_too_long_is_given_up(models: Models) -> None:
    gate = Gate()
    with running(held(models, gate), Limits(request_s=0.3)) as server:
        try:
            for path, body in (("/predict", {"texts": ["a film"]}), ("/explain", {"text": "a film"})):
                answer = server.post(path, body)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert answer.json()["error"].startswith("The answer took over 0.3 seconds")
        finally:
            gate.open.set()


@pytest.mark.parametrize(
    ("path", "body"), [("/predict", {"texts": ["a film"]}), ("/explain", {"text": "a film", "method": "gradient"})]
)
def test_work_ends_when_its_client_has_gone(models: Models, path: str, body: object) -> None:
    gate = Gate()
    with running(held(models, gate)) as server:
        sent = httpx.Request("POST", server.url + path, json=body)
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.headers.items())
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + sent.content)
            assert gate.reached.wait(60)
        try:
            while not counted(server).get(("staged_ulmfit_requests_total", path, "400")):
                time.sleep(0.01)
        finally:
            gate.open.set()
        assert gate.given_up.wait(60)


def test_a_stop_finishes_what_was_accepted(models: Models) -> None:
    gate = Gate()
    with running(held(models, gate)) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.post, "/predict", {"texts": ["a film"]})]
        assert gate.reached.wait(60)
        answers += [pool.submit(server.post, "/predict", {"texts": [f"{i} film"]}) for i in range(3)]
        while counted(server)["staged_ulmfit_waiting_requests",] < 3:
            time.sleep(0.01)
        stop = threading.Thread(target=server.http.stop)
        stop.start()
        while is_listening(server):
            time.sleep(0.01)
        gate.open.set()
        assert [answer.result().status_code for answer in answers] == [200] * 4
        stop.join()


def is_listening(server: Served) -> bool:
    try:
        return server.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_model_that_fails_is_told_without_details(
    models: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = load_classifier_bundle(seal_classifier(tmp_path / "broken", broken=True), FP32)
    good = models.classifiers["one"]
    with caplog.at_level(logging.ERROR), running(Models({"broken": broken, "good": good})) as server:
        for path, body in (("/predict", {"texts": ["a"]}), ("/explain", {"text": "a"})):
            answer = server.post(path, body)
            assert answer.status_code == 500
            assert answer.json() == {"error": "The model could not answer; the server's log says why."}
        assert server.post("/predict", {"texts": ["a"], "model": "good"}).status_code == 200
    assert capsys.readouterr().err.count("gives probabilities that are not finite for 1 of 1 texts.") == 2
    assert caplog.records == []


def test_a_defect_is_answered_as_carefully_and_counted(models: Models, caplog: pytest.LogCaptureFixture) -> None:
    defective = Models({"one": replace(models.classifiers["one"], labels=[])})
    with caplog.at_level(logging.ERROR), running(defective) as server:
        answer = server.post("/predict", {"texts": ["a"]})
        assert (answer.status_code, answer.json()) == (500, {"error": "The server has a defect; its log says more."})
        assert answer.headers.items() >= SECURITY_HEADERS.items()
        assert counted(server)["staged_ulmfit_requests_total", "/predict", "500"] == 1
    assert "Exception in ASGI application" in caplog.text


def test_models_get_short_names_that_differ(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "classifier-fwd", tmp_path / "b" / "classifier-fwd"]
    assert names(folders) == ["a", "b"]
    assert names([*folders, tmp_path / "a" / "classifier-bwd"]) == [
        "a/classifier-fwd", "b/classifier-fwd", "a/classifier-bwd"
    ]
    same = [tmp_path / "x" / "a" / "c", tmp_path / "y" / "a" / "c"]
    assert len(set(names(same))) == 2


def test_models_that_cannot_be_meant(home: Path) -> None:
    with pytest.raises(UsageError, match=r"A classifier is given twice\. Name every --model once\."):
        Models.load(["one", str(home / "models" / "one" / "classifier-fwd")], None, home, FP32)
    with pytest.raises(InputError, match=r"There is no language model two, and no run of this name has one in"):
        Models.load(["one"], "two", home, FP32)


def test_8_bits_are_for_classifiers(home: Path) -> None:
    models = Models.load(["one"], "one", home, PredictionSettings(device="cpu", precision="int8"))
    assert models.classifiers["one"].classifier.device.precision.startswith("int8+")
    assert models.language_model is not None
    assert models.language_model[1].device.precision == "fp32"


def test_the_most_texts_are_answered(server: Served) -> None:
    assert len(server.post("/predict", {"texts": ["a"] * MAX_TEXTS}).json()["predictions"]) == MAX_TEXTS
