#!/bin/sh
# timed.sh NAME COMMAND...: run the command, print its wall time, pass its exit status on.
name=$1
shift
printf '== %s\n' "$name"
start=$(date +%s)
status=0
"$@" || status=$?
printf '== %s: %s after %s s\n' "$name" "$([ "$status" -eq 0 ] && echo done || echo "FAILED ($status)")" "$(($(date +%s) - start))"
exit "$status"
