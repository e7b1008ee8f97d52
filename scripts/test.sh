#!/bin/sh
# test.sh PYTHON PROCESSES [ARGUMENT ...]: runs the suite by pytest with these arguments, in two parts: first what can share the
# processors, in several processes; then what measures times (the mark `alone`), one test after the other beside one that
# mostly waits (tests/schedule.py). If few tests failed in both together, these are tried once more, alone, and named
# (tests/again.py).
# The status is that of the first part that failed; 5, nothing was selected, only if that is so of both.
set -u
python=$1 processes=$2
shift 2

ended_badly() { # STATUS: interrupted, or wrongly used
    case $1 in
        0 | 1 | 5) return 1 ;;
    esac
}

"$python" -m pytest -n "$processes" -m "not alone" "$@"
first=$?
ended_badly "$first" && exit "$first"
"$python" -m pytest -n "$((processes < 2 ? processes : 2))" -m alone "$@"
second=$?
ended_badly "$second" && exit "$second"
case $first$second in
    *1*) exec "$python" -m tests.again "$@" ;;
    55) exit 5 ;;
esac
