#!/bin/bash
# All stages one after the other, where there is no Slurm. Give the same command again to go on.
# Ctrl-C, or TERM to this script, lets the stage save and ends the chain (exit code 75); once more, the stage at once.
# Written by: {{ command }}
cd "$(dirname "$0")" || exit 7

stage_pid= asked_at=

ask() {
    heard=yes
    # Twice within a second is one request: timeout signals this script, and then its group.
    if [ -n "$asked_at" ] && [ $((SECONDS - asked_at)) -le 1 ]; then return; fi
    asked_at=$SECONDS
    kill -TERM "$stage_pid" 2>/dev/null
}
trap ask INT TERM HUP

stage() {
    for _ in $(seq 0 {{ restarts }}); do
        [ -z "$asked_at" ] || exit 75
        exec 3> >(trap '' INT TERM HUP; exec tee -a "logs/$(basename "$1" .sh)${2:+-$2}.log")
        tee_pid=$!
        # In a session of its own it hears a signal once, from here.
        setsid bash "$@" >&3 2>&1 3>&- &
        stage_pid=$!
        exec 3>&-
        [ -z "$asked_at" ] || kill -TERM "$stage_pid" 2>/dev/null # it came before the stage had a number
        while heard=; wait "$stage_pid"; code=$?; [ -n "$heard" ]; do :; done # a signal ends the wait, not the stage
        wait "$tee_pid"
        # 143: it could not hear yet, and lost nothing. -1: bash 5.2 forgets the code of what ends as the signal comes.
        if [ -n "$asked_at" ]; then case "$code" in 143 | -1) code=75 ;; esac; fi
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
