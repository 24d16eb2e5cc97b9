"""A language model trained with plain fastai; the same command again resumes as fastai's documentation says.

docs.fast.ai, callback.schedule, "Resume training from checkpoint": save with SaveModelCallback(with_opt=True), define
the learner as before, load the checkpoint, pass start_epoch to fit. A checkpoint is written after every epoch and the
newest one is loaded by name. By design fastai resumes at epochs only, and saves neither the state of random number
generators nor that of the data loader.
"""

import argparse
import random
from pathlib import Path

import fastai.callback.schedule  # noqa: F401 - gives learners their fit_one_cycle
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.text.data import LMDataLoader
from fastai.text.learner import language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from fastai.torch_core import set_seed

from faults.rivals import in_save
from faults.rivals.journal import Journal

N_TYPES = 300
BATCH_SIZE = 8
SEQ_LEN_TOKENS = 24
N_DOCUMENTS = 40


class Journalist(Callback):
    """Notes every finished training step."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def after_batch(self) -> None:
        if self.training:
            self.journal.step(self.epoch * self.n_iter + self.iter + 1)


def documents(n_tokens: int, seed: int) -> list[torch.Tensor]:
    """`n_tokens` token ids in N_DOCUMENTS documents; each id is drawn close to the one before it."""
    rng = random.Random(seed)
    ids = [0]
    while len(ids) < n_tokens:
        ids.append((ids[-1] + rng.choice((1, 2, 3, 50))) % N_TYPES)
    return list(torch.tensor(ids).tensor_split(N_DOCUMENTS))


def newest_epoch(models: Path) -> int | None:
    """The highest epoch a checkpoint is named for."""
    return max((int(path.stem.removeprefix("model_")) for path in models.glob("model_*.pth")), default=None)


def main(argv: list[str]) -> None:
    """Train, or go on training, in the folder --run."""
    parser = argparse.ArgumentParser(prog="fastai_job")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True, help="steps per checkpoint, here steps per epoch")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    in_save.arm()
    journal = Journal(args.run)

    set_seed(42, reproducible=True)
    n_tokens = args.save_every * BATCH_SIZE * SEQ_LEN_TOKENS + 1
    loaders = [
        LMDataLoader(documents(n, seed), bs=BATCH_SIZE, seq_len=SEQ_LEN_TOKENS, shuffle=shuffle)
        for n, seed, shuffle in ((n_tokens, 0, True), (n_tokens // 10, 1, False))
    ]
    dls = DataLoaders(*loaders, path=args.run, device=torch.device("cpu"))
    dls.vocab = [str(i) for i in range(N_TYPES)]
    config = {**awd_lstm_lm_config, "emb_sz": 96, "n_hid": 192, "n_layers": 2}
    learn = language_model_learner(dls, AWD_LSTM, config=config, pretrained=False, path=args.run)

    last = newest_epoch(args.run / "models")
    if last is not None:
        print(f"resuming from model_{last}", flush=True)
        learn.load(f"model_{last}")
    callbacks = [SaveModelCallback(every_epoch=True, with_opt=True), Journalist(journal)]
    start_epoch = 0 if last is None else last + 1
    learn.fit_one_cycle(args.steps // args.save_every, 1e-2, cbs=callbacks, start_epoch=start_epoch)
    learn.save("final", with_opt=True)
    journal.finish(learn.model.state_dict(), learn.opt.state_dict())
