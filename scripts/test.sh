#!/bin/sh
# test.sh PYTHON PROCESSES [ARGUMENT ...]: runs the suite by pytest with these arguments, in two parts: first what can share the
# processors, in several processes; then what measures times (the mark `alone`), one test after the other.
# The status is that of the first part that failed; 5, nothing was selected, only if that is so of both.
set -u
python=$1 processes=$2
shift 2
"$python" -m pytest -n "$processes" -m "not alone" "$@"
first=$?
case $first in
    0 | 1 | 5) ;;
    *) exit "$first" ;; # interrupted, or wrongly used
esac
"$python" -m pytest -m alone "$@"
second=$?
case $first in
    0) [ "$second" -eq 5 ] || exit "$second" ;;
    5) exit "$second" ;;
    *) exit "$first" ;;
esac
