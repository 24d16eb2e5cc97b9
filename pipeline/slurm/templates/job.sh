#!/bin/bash
# {{ title }}
# Written by: {{ command }}
# Also runs without Slurm: bash {{ file }}{{ " INDEX" if elements | length > 1 }}
#SBATCH --job-name={{ job_name }}
#SBATCH --output="{{ log }}"
#SBATCH --open-mode=append
{% if nodes * processes == 1 %}
#SBATCH --nodes=1 --ntasks=1
{% else %}
#SBATCH --nodes={{ nodes }} --ntasks-per-node={{ processes }}
{% endif %}
{% for option in options %}
#SBATCH {{ option }}
{% endfor %}
# Before its time is over the stage is asked to save; it then ends with exit code 75.
#SBATCH --requeue --signal=USR1@{{ warn_s }}

cd {{ folder }} || exit 7
{% for line in setup %}
{{ line }}
{% endfor %}
{% if elements | length > 1 %}
case "${SLURM_ARRAY_TASK_ID:-${1:?which of 0 to {{ elements | length - 1 }}}}" in
{% for element in elements %}
    {{ loop.index0 }}) stage=({{ element }}) ;;
{% endfor %}
    *) echo "no element of this number" >&2; exit 2 ;;
esac
{% else %}
stage=({{ elements[0] }})
{% endif %}

{% if nodes * processes == 1 %}
if [ -z "${SLURM_JOB_ID:-}" ]; then exec "${stage[@]}"; fi
# srun hands Slurm's signals to the stage itself.
srun --kill-on-bad-exit=1 "${stage[@]}"
{% else %}
if [ -z "${SLURM_JOB_ID:-}" ]; then
    export MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 20000)) WORLD_SIZE={{ processes }}
    ranks=()
    for rank in $(seq 0 {{ processes - 1 }}); do
        RANK=$rank LOCAL_RANK=$rank "${stage[@]}" &
        ranks+=($!)
    done
    trap 'kill -TERM "${ranks[@]}"' TERM INT USR1
    # A signal ends the first wait, not the rank.
    while wait "${ranks[0]}"; code=$?; kill -0 "${ranks[0]}" 2>/dev/null; do :; done
    wait
    exit "$code"
fi
# Each task is a rank, and they meet on the first node. torchrun would answer 1 to whatever a stage ends with, and die of
# USR1: srun hands on Slurm's signals and the stage's exit code.
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
srun --kill-on-bad-exit=1 \
    bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec "$@"' rank "${stage[@]}"
{% endif %}
code=$?
# A signal that came before the stage could hear it, or after its end, ended it without a word (USR1 138, TERM 143):
# nothing is lost by that either.
case "$code" in 138 | 143) code=75 ;; esac
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt {{ restarts }} ]; then
    # Stopped, not failed: the same job comes again and goes on. What waits for it goes on waiting.
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # until Slurm ends this script
fi
exit "$code"
