#!/bin/bash
# All stages one after the other, where there is no Slurm. Give the same command again to go on.
# Written by: {{ command }}
cd "$(dirname "$0")" || exit 7

stage() {
    for _ in $(seq 0 {{ restarts }}); do
        bash "$@" 2>&1 | tee -a "logs/$(basename "$1" .sh)${2:+-$2}.log"
        code=${PIPESTATUS[0]}
        [ "$code" -eq 75 ] || break # stopped, not failed: it goes on
    done
    [ "$code" -eq 0 ] || exit "$code"
}

{% for job in jobs %}
{% if job.elements > 1 %}
{% for index in range(job.elements) %}
stage {{ job.file }} {{ index }}
{% endfor %}
{% else %}
stage {{ job.file }}
{% endif %}
{% endfor %}
