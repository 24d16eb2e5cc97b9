#!/bin/bash
# The same in one job per kind of node, by hand: bash scripts/slurm/chain.bash. Text needs processors and memory, models
# need a GPU; the second job starts only when the first one ended with exit code 0, that is, with its stages sealed.
# `python -m pipeline submit` writes such files for any recipe, with requeueing, arrays and a record of the job ids.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p logs

common=(--parsable --open-mode=append --output=logs/%x.log --requeue)
text=$(sbatch "${common[@]}" --job-name=imdb-text --cpus-per-task=16 --mem=32G --time=1:00:00 --wrap \
    "source .venv/bin/activate; srun python -m pipeline run --recipe imdb --until numericalize_corpus")
model=$(sbatch "${common[@]}" --job-name=imdb-model --gres=gpu:1 --cpus-per-task=8 --mem=32G --time=12:00:00 \
    --dependency="afterok:$text" --kill-on-invalid-dep=yes --wrap \
    "source .venv/bin/activate; srun python -m pipeline run --recipe imdb --from finetune_lm")
echo "text $text, model $model"
