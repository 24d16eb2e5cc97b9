"""A tiny GPT-2 trained with Hugging Face Trainer; the same command again resumes as its documentation says.

transformers docs, "Trainer", checkpoints: save_strategy="steps", save_total_limit, and
`trainer.train(resume_from_checkpoint=...)` with the folder that `get_last_checkpoint` finds. `enable_jit_checkpoint`,
the documented choice for preemptible machines, saves on SIGTERM after a wait of 3 s that the library fixes.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from faults.rivals import in_save
from faults.rivals.journal import Journal

N_TYPES = 300
BATCH_SIZE = 8
SEQ_LEN_TOKENS = 24
CHECKPOINTS_PER_EPOCH = 2  # a checkpoint in the middle of an epoch and one at its end


class Journalist(TrainerCallback):
    """Notes every finished training step."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.journal.step(state.global_step)


def sequences(n: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """`n` sequences of token ids; each id is drawn close to the one before it."""
    rng = random.Random(seed)
    examples = []
    for _ in range(n):
        ids = [rng.randrange(N_TYPES)]
        while len(ids) < SEQ_LEN_TOKENS:
            ids.append((ids[-1] + rng.choice((1, 2, 3, 50))) % N_TYPES)
        examples.append({"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)})
    return examples


def main(argv: list[str]) -> None:
    """Train, or go on training, in the folder --run."""
    parser = argparse.ArgumentParser(prog="transformers_job")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True, help="steps per checkpoint")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    in_save.arm()
    journal = Journal(args.run)

    steps_per_epoch = CHECKPOINTS_PER_EPOCH * args.save_every
    output = args.run / "checkpoints"
    settings = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=args.steps / steps_per_epoch,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        save_strategy="steps",
        save_steps=args.save_every,
        save_total_limit=2,
        enable_jit_checkpoint=True,
        seed=42,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )
    set_seed(settings.seed)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=N_TYPES, n_positions=SEQ_LEN_TOKENS, n_embd=96, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    ))
    trainer = Trainer(
        model=model, args=settings, train_dataset=sequences(steps_per_epoch * BATCH_SIZE, seed=0),
        callbacks=[Journalist(journal)],
    )
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    print(f"resuming from {last}", flush=True)
    trainer.train(resume_from_checkpoint=last)
    if trainer.state.global_step < trainer.state.max_steps:
        print(f"stopped at step {trainer.state.global_step}", flush=True)
        return  # stopped by SIGTERM: what there is, is no final model
    trainer.save_model(str(args.run / "final"))
    journal.finish(trainer.model.state_dict(), trainer.optimizer.state_dict())
