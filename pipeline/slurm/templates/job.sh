#!/bin/bash
# {{ title }}
# Written by: {{ command }}
# Also runs without Slurm: bash {{ file }}{{ " INDEX" if elements | length > 1 }}
#SBATCH --job-name={{ job_name }}
#SBATCH --output={{ log }}
#SBATCH --open-mode=append
#SBATCH --nodes=1 --ntasks=1
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

if [ -z "${SLURM_JOB_ID:-}" ]; then exec "${stage[@]}"; fi
# srun hands Slurm's signals to the stage itself.
srun --kill-on-bad-exit=1 "${stage[@]}"
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
