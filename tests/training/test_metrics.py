"""Figures of a validation: what they are means of."""

from pathlib import Path

import pytest
import tiny_training
import torch
from fastai.losses import CrossEntropyLossFlat
from tiny_training import CLASSIFIER, train

from pipeline.training_settings import Phase


@pytest.mark.parametrize("loss", [
    {"weight": torch.tensor([0.5, 2.0])}, {"label_smoothing": 0.2},
], ids=["class weights", "smoothing"])
def test_the_loss_of_a_classifier_is_the_mean_of_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: dict[str, object]
) -> None:
    """Neither the classes of a batch nor what training adds to the loss weigh in it."""
    settings = CLASSIFIER.model_copy(update={"phases": (Phase(name="still", lr=1e-12),)})
    plain = train(tmp_path / "plain", settings).history[0]
    monkeypatch.setattr(tiny_training, "CrossEntropyLossFlat", lambda: CrossEntropyLossFlat(**loss))
    found = train(tmp_path / "other", settings).history[0]
    assert found["train_loss"] != pytest.approx(plain["train_loss"], rel=1e-3)
    assert found["valid_loss"] == pytest.approx(plain["valid_loss"], rel=1e-5)
