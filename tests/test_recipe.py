"""Recipes: precedence, overrides, and the sentences that mend what is wrong."""

import re
import tomllib
from pathlib import Path

import pytest

from pipeline.describe import recipe_toml, sections, settings_of
from pipeline.errors import ExitCode, UsageError
from pipeline.recipe import Recipe, load_recipe, setting_paths, shipped_recipes
from pipeline.settings import TokenizeCorpusSettings
from pipeline.slurm.jobs import job_settings
from pipeline.stage import stage_named

RECIPE = """
description = "for tests"
[run]
seed = 1
[tokenize_corpus]
tokenizer = "subword"
vocab_size = 500
[variants.char.tokenize_corpus]
tokenizer = "char"
[variants.large.tokenize_corpus]
vocab_size = 900
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_and_each_of_its_variants_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description.endswith("."), "say in one line what the recipe is for"
    for variant in recipe.variants:
        load_recipe(name, variant=variant)


IMDB = ("imdb", "imdb-bwd", "imdb-subword")


@pytest.mark.parametrize("name", IMDB)
def test_the_published_recipes_start_from_wikitext_and_tell_what_was_reached(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.inputs.start_lm == f"models/wt103/lm-{recipe.run.direction}"
    assert recipe.finetune_lm.vocabulary == "match"
    assert recipe.published.accuracy is not None
    assert 0.9 < recipe.published.accuracy < 1
    assert "fastai/fastai" in shipped_recipes()[name]
    assert ".ipynb" in str(recipe.published.source)
    for phase in recipe.train_classifier.phases[1:]:  # slice(lr / 2.6**4, lr), as published
        assert phase.lr_lowest == pytest.approx(phase.lr / 2.6**4, rel=1e-4)


def test_a_published_figure_has_a_source(recipe_file: str) -> None:
    with pytest.raises(UsageError, match=r"published: accuracy is given without its source"):
        load_recipe(recipe_file, ["published.accuracy=0.9"])


def test_precedence_is_default_recipe_variant_set(recipe_file: str) -> None:
    key = "tokenize_corpus.vocab_size=1000"
    assert TokenizeCorpusSettings().vocab_size == 8000
    assert load_recipe(recipe_file).tokenize_corpus.vocab_size == 500
    assert load_recipe(recipe_file, variant="large").tokenize_corpus.vocab_size == 900
    assert load_recipe(recipe_file, [key], "large").tokenize_corpus.vocab_size == 1000
    assert load_recipe(recipe_file, variant="large").tokenize_corpus.tokenizer == "subword"
    assert load_recipe(recipe_file, variant="char").run.seed == 1


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("run.seed=7", "run.seed", 7),
        ("tokenize_corpus.tokenizer=subword", "tokenize_corpus.tokenizer", "subword"),
        ('tokenize_corpus.tokenizer="char"', "tokenize_corpus.tokenizer", "char"),
        ("prepare_corpus.source=../a b/x=1.csv", "prepare_corpus.source", "../a b/x=1.csv"),
        ("prepare_corpus.label_column=none", "prepare_corpus.label_column", None),
        ("train_classifier.class_weights=none", "train_classifier.class_weights", "none"),
        ("prepare_corpus.text_column=0", "prepare_corpus.text_column", "0"),
        ("prepare_corpus.text_column=2024-01-01", "prepare_corpus.text_column", "2024-01-01"),
        ("prepare_corpus.text_column=12:00:00", "prepare_corpus.text_column", "12:00:00"),
        ("finetune_lm.clip=0.25", "finetune_lm.clip", 0.25),
        ("finetune_lm.moms=[0.9, 0.8, 0.9]", "finetune_lm.moms", (0.9, 0.8, 0.9)),
        ("finetune_lm.tie_weights=false", "finetune_lm.tie_weights", False),
        ("train_classifier.lin_ftrs=[20, 10]", "train_classifier.lin_ftrs", (20, 10)),
    ],
)
def test_an_override_sets_one_value(recipe_file: str, override: str, path: str, value: object) -> None:
    section, key = path.split(".")
    assert getattr(getattr(load_recipe(recipe_file, [override]), section), key) == value


def test_an_override_reaches_into_phases(recipe_file: str) -> None:
    recipe = load_recipe(recipe_file, ["finetune_lm.phases.1.epochs=9"])
    assert [phase.epochs for phase in recipe.finetune_lm.phases] == [1, 9]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed", "--set 'run.seed' has no '='. Write --set section.key=value."),
        ("seed=1", "--set 'seed=1' names no section. Write --set section.key=value."),
        ("run.sed=1", "there is no setting 'run.sed'. Did you mean 'run.seed'?"),
        ("numericalize_corpus.max_vocabulary=9", "Did you mean 'numericalize_corpus.max_vocab'?"),
        ("tokenise_corpus.tokenizer=word", "--set tokenise_corpus.tokenizer: there is no such setting. Did you mean "
         "'tokenize_corpus.tokenizer'?"),
        ("run.vocab_size=9", "Did you mean 'tokenize_corpus.vocab_size'?"),
        ("finetune_lm.phases.7.lr=1", "--set finetune_lm.phases.7.lr: there is no such setting."),
        ("run.seed.x=1", "--set run.seed.x: there is no such setting. Did you mean 'run.seed'?"),
        ("run.seed=-1", "run.seed: Input should be greater than or equal to 0, not -1."),
        ("run.seed=many", "run.seed: Input should be a valid integer, unable to parse string as an integer"),
        ("run.precision=fp8", "run.precision: Input should be 'auto', 'fp16', 'bf16' or 'fp32', not 'fp8'."),
        ("finetune_lm.weight_p=1.0", "finetune_lm.weight_p: Input should be less than 1, not 1.0."),
        ("train_classifier.bs=1", "train_classifier.bs: Input should be greater than or equal to 2"),
        ("finetune_lm.drop_mult=6", "finetune_lm: input_p times drop_mult is 1.5, not below 1."),
        ("finetune_lm.phases=[]", "finetune_lm.phases"),
        ("run.seed=9223372036854775808", "run.seed: Input should be less than or equal to 9223372036854775807"),
        ("tokenize_corpus.vocab_size=3000000000", "tokenize_corpus.vocab_size: Input should be less than or equal to "
         "1000000000"),
        ("tokenize_corpus.character_coverage=0.97", "Input should be greater than or equal to 0.98, not 0.97."),
        ("slurm.jobs=3", "--set: slurm.jobs: Input should be a valid dictionary, not 3."),
        ("slurm.jobs.finetun_lm.time=5", "--set slurm.jobs.finetun_lm.time: there is no such setting. Did you mean "
         "'slurm.jobs.finetune_lm.time'?"),
        ("slurm.jobs.finetune_lm.tme=5", "--set: there is no setting 'slurm.jobs.finetune_lm.tme'. Did you mean "
         "'slurm.jobs.finetune_lm.time'?"),
        ("slurm.jobs.finetune_lm.options.time=5", "--set slurm.jobs.finetune_lm.options.time: there is no such "),
        ("finetune_lm.checkpoint_minutes=inf", "finetune_lm.checkpoint_minutes: Input should be a finite number, not "
         "inf."),
        ("finetune_lm.phases.0.lr=nan", "finetune_lm.phases.0.lr: Input should be a finite number, not nan."),
        ("prepare_corpus.sha256=abc", "prepare_corpus.sha256: String should match pattern"),
    ],
)
def test_a_wrong_override_is_refused_in_one_or_two_sentences(recipe_file: str, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        load_recipe(recipe_file, [override])
    assert caught.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nsede = 1", "there is no setting 'run.sede'. Did you mean 'run.seed'?"),
        ("[tokenise_corpus]\ntokenizer = 'word'", "there is no setting 'tokenise_corpus'. Did you mean "
         "'tokenize_corpus'?"),
        ("[run\nseed = 1", "is not valid TOML"),
        ("[run]\nseed = 1\nseed = 2", "is not valid TOML"),
        ("[[finetune_lm.phases]]\nname = 'a'", "finetune_lm.phases.0.lr: Field required."),
        ("[run]\nsede = 1\ndirektion = 'fwd'", "(1 more like this.)"),
    ],
)
def test_a_wrong_recipe_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        load_recipe(written(tmp_path, text))


def test_unknown_recipes_and_variants_name_the_nearest(recipe_file: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no recipe 'human-number'\. Did you mean 'human-numbers'\?"):
        load_recipe("human-number")
    with pytest.raises(UsageError, match=r"has no variant 'lage'\. Did you mean 'large'\?"):
        load_recipe(recipe_file, variant="lage")
    with pytest.raises(UsageError, match=r"absent\.toml cannot be read: .*No such file"):
        load_recipe(str(tmp_path / "absent.toml"))


def test_a_variant_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "[variants.a.tokenize_corpus]\ntokeniser = 'char'")
    with pytest.raises(UsageError, match=r"variant a of recipe .*Did you mean 'tokenize_corpus\.tokenizer'\?"):
        load_recipe(path, variant="a")


def test_the_mistake_of_a_variant_is_not_that_of_an_override(tmp_path: Path) -> None:
    path = written(tmp_path, "[variants.a.run]\nseed = -1\n[variants.b]\nprepare_corpus = 3")
    source = 'prepare_corpus.source="x.csv"'
    with pytest.raises(UsageError, match=r"^variant a of recipe .*: run\.seed: Input should be greater than or equal"):
        load_recipe(path, [source], "a")
    with pytest.raises(UsageError, match=r"^variant b of recipe .*: prepare_corpus: Input should be"):
        load_recipe(path, [source], "b")
    with pytest.raises(UsageError, match=r"^--set: run\.precision: "):
        load_recipe(path, ["run.seed=1", "run.precision=fp8"])
    assert load_recipe(path, ["run.seed=1"], "a").run.seed == 1


def test_a_recipe_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "\ufeff[run]\nseed = 7")).run.seed == 7


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_reads_back_as_itself(name: str) -> None:
    recipe = load_recipe(name, ["finetune_lm.clip=0.1", 'prepare_corpus.source="a \\"b\\" \\\\ ü"'])
    assert Recipe.model_validate(tomllib.loads(recipe_toml(recipe))) == recipe


def test_a_resolved_recipe_with_variants_reads_back_as_itself(recipe_file: str) -> None:
    recipe = load_recipe(recipe_file)
    assert Recipe.model_validate(tomllib.loads(recipe_toml(recipe))) == recipe


JOBS = """
[slurm.jobs.gpu]
partition = "gpu"
gpus = 1
time = "12:00:00"
[slurm.jobs.finetune_lm]
time = "2-0"
[variants.large.tokenize_corpus]
vocab_size = 900
"""


@pytest.mark.parametrize(("overrides", "variant"), [
    (["prepare_corpus.offline=true"], None), ([], "large"), (["slurm.jobs.gpu.cpus=4"], "large"),
])
def test_a_job_of_a_stage_keeps_what_only_its_kind_asks_for(
    tmp_path: Path, overrides: list[str], variant: str | None
) -> None:
    recipe = load_recipe(written(tmp_path, JOBS), overrides, variant)
    resolved = load_recipe(written(tmp_path, recipe_toml(recipe)))
    for slurm in (recipe.slurm, resolved.slurm):
        asked = job_settings(slurm, stage_named("finetune_lm"))
        assert (asked.partition, asked.gpus, asked.time) == ("gpu", 1, "2-0")
        assert asked.cpus == (4 if overrides[:1] == ["slurm.jobs.gpu.cpus=4"] else None)


def test_an_override_may_give_a_stage_a_job_of_its_own(recipe_file: str) -> None:
    recipe = load_recipe(recipe_file, [
        "slurm.jobs.gpu.gpus=1", "slurm.jobs.finetune_lm.time=2-0", "slurm.jobs.finetune_lm.memory=64G",
    ])
    asked = job_settings(recipe.slurm, stage_named("finetune_lm"))
    assert (asked.gpus, asked.time, asked.memory) == (1, "2-0", "64G")


def test_every_setting_has_a_meaning_a_type_and_a_default() -> None:
    described = set()
    for section in sections():
        for name, meaning in settings_of(section):
            key, kind = name.split("  ")
            assert kind
            assert re.fullmatch(r".+[^ ] \[(default .+|required)\]", meaning), name
            described.add(f"{section}.{key}")
    paths = set(setting_paths())
    assert described == {path for path in paths if "." in path}


def test_none_unsets_what_can_be_unset_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[prepare_corpus]\nlabel_column = "none"\ntext_column = "none"\n', encoding="utf-8")
    recipe = load_recipe(str(path))
    assert recipe.prepare_corpus.label_column is None
    assert recipe.prepare_corpus.text_column == "none"
    path.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if load_recipe(name).evaluate_ensemble.members])
def test_an_ensemble_names_variants_that_differ_in_how_they_read(name: str) -> None:
    recipe = load_recipe(name)
    members = [load_recipe(name, variant=member) for member in recipe.evaluate_ensemble.members]
    assert len({(m.run.direction, m.tokenize_corpus.tokenizer) for m in members}) == len(members) >= 2
    assert all(member.prepare_corpus == recipe.prepare_corpus for member in members)
    for member in members:
        assert member.inputs.start_lm is None or member.inputs.start_lm.endswith(f"lm-{member.run.direction}")


def test_the_published_ensemble_has_the_settings_of_its_members_recipe() -> None:
    own = {"description", "variants", "evaluate_ensemble", "published"}
    assert load_recipe("imdb-ensemble").model_dump(exclude=own) == load_recipe("imdb").model_dump(exclude=own)
