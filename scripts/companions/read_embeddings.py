"""Embeddings one can read: films of MovieLens, told apart by what 610 people gave them.

    python scripts/companions/read_embeddings.py

Three models beside the mean and biases alone: dot product with biases, a small net, and a mixed categorical and
continuous model. Then what the dot product learned: the best and worst films, and the ends of its main directions.
"""

import warnings
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import companion
import numpy as np
import pandas as pd
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.block import RegressionBlock
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.tabular.core import Categorify, Normalize, TabularPandas
from fastai.tabular.learner import tabular_learner
from fastai.tabular.model import tabular_config
from fastai.torch_core import set_seed
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pipeline.download import fetch
from pipeline.picture import write_picture
from pipeline.progress import Reporter
from pipeline.published import PublishedFile, WholeSha256

MOVIELENS = PublishedFile(
    "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
    WholeSha256("696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436"),
)
"""The sum is the one that TensorFlow Datasets checks; GroupLens may change the file some day."""
Y_RANGE, N_FACTORS, BS = (0.0, 5.5), 50, 512
USER, FILM, TARGET = "userId", "movieId", "rating"
FEATURES = ["film_year", "rated_year", "n_genres"]


def tables(source: Path) -> tuple[pd.DataFrame, pd.Series]:
    """Ratings with what is known of their films, and titles by film, from the folder or archive of MovieLens."""
    with companion.reading(source, "the folder or archive ml-latest-small"):
        found: list[pd.DataFrame] = []
        with nullcontext() if source.is_dir() else zipfile.ZipFile(source) as archive:
            for name in ("ratings.csv", "movies.csv"):
                path = archive.open(f"ml-latest-small/{name}") if archive else source / name
                found.append(pd.read_csv(path))
        ratings, films = found
        year = films["title"].str.extract(r"\((\d{4})\)\s*$")[0].astype(float)
        films["film_year"] = year.fillna(year.median())
        films["n_genres"] = films["genres"].str.count(r"\|") + 1.0
        films["genre"] = films["genres"].str.split("|").str[0]
        ratings["rated_year"] = 1970 + ratings["timestamp"] / (365.25 * 24 * 3600)
        ratings = ratings.merge(films, on=FILM)[[USER, FILM, TARGET, "genre", *FEATURES]]
    return ratings, films.set_index(FILM)["title"]


def validated(learn: Learner, epochs: int, lr: float, wd: float) -> float:
    """RMSE on the validation ratings after training by one cycle."""
    with companion.quiet(learn):
        learn.fit_one_cycle(epochs, lr, wd=wd)
        predicted, targets = learn.get_preds()
    return float((predicted.flatten() - targets.flatten()).square().mean().sqrt())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the models, compare them, and read the first one's embeddings."""
    parser = companion.options(__doc__, "folder or archive ml-latest-small; default: downloaded into data/downloads")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--ratings", type=int, default=50, help="that a film needs to be named; default: %(default)s")
    parser.add_argument("--seed", type=int, default=42, help="default: %(default)s")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # fastai only reads it
    warnings.filterwarnings("ignore", "Constructing a Categorical")  # by fastai: films without a training rating
    ratings, titles = tables(given.source or fetch([MOVIELENS], Path("data/downloads"), Reporter())[0])
    set_seed(given.seed, reproducible=True)
    dls = CollabDataLoaders.from_df(ratings[[USER, FILM, TARGET]], seed=given.seed, bs=BS)
    train, valid = ratings.loc[dls.train_ds.items.index], ratings.loc[dls.valid_ds.items.index]
    mixed = TabularPandas(
        ratings, [Categorify, Normalize], [USER, FILM, "genre"], list(FEATURES), TARGET, RegressionBlock(),
        splits=(list(train.index), list(valid.index)),
    ).dataloaders(bs=BS)
    layers: dict[str, Any] = {"layers": [10], "emb_szs": {USER: N_FACTORS, FILM: N_FACTORS}, "y_range": Y_RANGE}
    people_films = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge(3.0, solver="sparse_cg"))
    people_films.fit(train[[USER, FILM]], train[TARGET])
    dot = collab_learner(dls, N_FACTORS, y_range=Y_RANGE)
    net = collab_learner(dls, use_nn=True, config=tabular_config(ps=[0.5], embed_p=0.05), **layers)
    config = tabular_config(ps=[0.5], embed_p=0.05)  # its own: fastai writes into the other
    both = tabular_learner(mixed, config=config, loss_func=MSELossFlat(), n_out=1, **layers)
    rmse = {
        "mean of all ratings": root_mean_squared_error(valid[TARGET], np.full(len(valid), train[TARGET].mean())),
        "biases alone": root_mean_squared_error(valid[TARGET], people_films.predict(valid[[USER, FILM]])),
    }
    for name, learn in {"dot product and biases": dot, "small net": net, "mixed": both}.items():
        rmse[name] = validated(learn, given.epochs, 5e-3, 0.1)
    counts = train[FILM].value_counts()
    named = counts[counts >= given.ratings].index
    bias = pd.Series(dot.model.bias(list(named)).numpy(), titles[named]).sort_values(ascending=False)
    axes_of = PCA(2).fit_transform(dot.model.weight(list(named)).numpy())
    read = {"best by bias": list(bias.index[:5]), "worst by bias": list(bias.index[:-6:-1])}
    for number, values in enumerate(axes_of.T, start=1):
        order = np.argsort(values)
        for end, chosen in (("low", order[:5]), ("high", order[:-6:-1])):
            read[f"factor {number}, {end} end"] = [titles[named[i]] for i in chosen]
    print(*(f"{what}: {'; '.join(films)}" for what, films in read.items()), "", sep="\n")
    rows = [["validation", "RMSE"], *([name, f"{value:.4f}"] for name, value in rmse.items())]
    companion.deliver("read_embeddings", given, rows, {"rmse": rmse, "valid_ratings": len(valid), "films": read})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.scatter(axes_of[:40, 0], axes_of[:40, 1], s=8)
        for film, at in zip(named[:40], axes_of[:40], strict=False):
            axes.annotate(titles[film], at, fontsize=7)
        axes.set(xlabel="first factor", ylabel="second factor")

    write_picture(given.output / "read_embeddings.png", (12, 8), draw)


if __name__ == "__main__":
    companion.run(main)
