"""pipeline.report.summary: the table at the end of a run."""

from pipeline.report.summary import ensemble_table, result_table
from pipeline.settings import PublishedSettings

EVALUATION = {
    "accuracy": 0.8012, "accuracy_low": 0.785, "accuracy_high": 0.8167, "macro_f1": 0.79, "log_loss": 0.45,
    "calibration_error": 0.02, "test_documents": 2561, "majority_accuracy": 0.5782, "transductive": False,
    "baseline": {
        "name": "TF-IDF + logistic regression", "accuracy": 0.771, "accuracy_low": 0.7541, "accuracy_high": 0.787
    },
    "mcnemar_p": 0.001,
}


def test_whole_table() -> None:
    lm = {"perplexity": 81.234, "accuracy": 0.271, "bits_per_character": 1.8421, "epochs": 3}
    assert result_table(EVALUATION, lm) == (
        "Test split                    accuracy     95 % interval\n"
        "--------------------------------------------------------\n"
        "majority class                 57.82 %\n"
        "TF-IDF + logistic regression   77.10 %  75.41 to 78.70 %\n"
        "this classifier                80.12 %  78.50 to 81.67 %\n"
        "2,561 test documents\n"
        "\n"
        "Language model       validation\n"
        "-------------------------------\n"
        "perplexity                81.23\n"
        "next-token accuracy     27.10 %\n"
        "bits per character        1.842"
    )


def test_without_baseline_and_language_model() -> None:
    without = {name: value for name, value in EVALUATION.items() if name not in ("baseline", "mcnemar_p")}
    lines = result_table(without, None).split("\n")
    assert [line.split("  ")[0] for line in lines] == [
        "Test split", "-" * len(lines[0]), "majority class", "this classifier", "2,561 test documents"
    ]


def test_what_was_published_stands_beside_it() -> None:
    published = PublishedSettings(accuracy=0.94512, source="a notebook; it has read the test text.")
    lines = result_table(EVALUATION, None, published).split("\n")
    assert lines[4:] == [
        "this classifier                80.12 %  78.50 to 81.67 %",
        "published                      94.51 %",
        "2,561 test documents",
        "-14.39 points from what was published: a notebook; it has read the test text.",
    ]
    assert result_table(EVALUATION, None, PublishedSettings()) == result_table(EVALUATION, None)


def test_transductive_numbers_are_marked() -> None:
    table = result_table({**EVALUATION, "transductive": True}, None)
    assert table.endswith("Published protocol: the language model has read the test documents' text.")
    assert "ublished" not in result_table(EVALUATION, None)


def test_an_ensemble_stands_beside_its_members() -> None:
    figures = ("accuracy", "accuracy_low", "accuracy_high")
    word = {**{key: EVALUATION[key] for key in figures}, "mcnemar_p": 0.04}
    ensemble = EVALUATION | {
        "accuracy": 0.81, "accuracy_low": 0.8, "accuracy_high": 0.82, "best_member": "word",
        "members": {"word": word, "subword": {**word, "accuracy": 0.7, "mcnemar_p": 0.001}},
    }
    assert ensemble_table(ensemble) == (
        "Test split                    accuracy     95 % interval\n"
        "--------------------------------------------------------\n"
        "majority class                 57.82 %\n"
        "TF-IDF + logistic regression   77.10 %  75.41 to 78.70 %\n"
        "word                           80.12 %  78.50 to 81.67 %\n"
        "subword                        70.00 %  78.50 to 81.67 %\n"
        "ensemble                       81.00 %  80.00 to 82.00 %\n"
        "2,561 test documents\n"
        "McNemar, ensemble and TF-IDF + logistic regression: p = 0.001\n"
        "McNemar, ensemble and word (best member): p = 0.04"
    )
