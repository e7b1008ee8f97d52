# Runs on a node, read by /bin/sh from its standard input. The lines before this one, written by
# clio_control_api.node_script, set (all values quoted for the shell, none from a request):
#   action       shutdown, restart or log
#   program      the runtime's command, empty to look for it
#   stop_limit   seconds that stopping may take before a restart ends the process itself
#   client_port  TCP port of the runtime's client socket
#   log          file for the output of a restarted runtime, empty for the default
#   log_name     name of the default log file
#   custom       1 when run_custom is the configured command
# Standard input stays open while the caller waits; its end means that the caller has gone.

umask 077
[ -n "$log" ] || log=${HOME:-/tmp}/.clio/$log_name

fail() {
    status=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$status"
}

find_program() {
    if [ -n "$program" ]; then
        command -v "$program" >/dev/null 2>&1 || fail 127 "$program: command not found on this node"
        return
    fi
    for program in clio_run chimaera; do
        if command -v "$program" >/dev/null 2>&1; then return; fi
    done
    fail 127 "neither clio_run nor chimaera was found in PATH ($PATH)"
}

# 1.5: 'runtime restart'; up to 2.2: 'restart'; since 2.3 'start' recovers and there is no 'restart'.
find_words() {
    prefix=
    start=start
    case $(timeout 10 "$program" --help 2>&1 </dev/null) in
        *'runtime restart'*) prefix=runtime start=restart ;;
        *restart*) start=restart ;;
    esac
}

# Runs a command in a process group of its own, which ends when the caller goes away.
supervised() {
    exec 3<&0
    setsid "$@" </dev/null 3<&- &
    child=$!
    {
        cat <&3
        kill -TERM "-$child"
        sleep 2
        kill -KILL "-$child"
    } >/dev/null 2>&1 &
    watcher=$!
    exec 3<&-
    wait "$child"
    status=$?
    kill "$watcher" 2>/dev/null
    exit "$status"
}

# What the detached shell runs: $1 port, $2 program, $3 prefix (may be empty), $4 start word, $5 stop_limit.
sequence=$(cat <<'SEQUENCE'
port=$1 program=$2 prefix=$3 start=$4 limit=$5
say() { printf '%s control API: %s\n' "$(date '+%Y-%m-%dT%H:%M:%S%z')" "$*"; }

# Process ids of this user's processes that listen on the port.
listeners() {
    hex=$(printf '%04X' "$port")
    for inode in $(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }'); do
        find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null
    done | cut -d / -f 3 | sort -u
}

# Why a process may not be ended; nothing where it is a runtime of this user. What its command line says
# does not count: there may be 'clio' in any path.
objection() {
    user=$(awk '$1 == "Uid:" { print $3 }' "/proc/$1/status" 2>/dev/null)
    [ "$user" = "$(id -u)" ] || { echo "belongs to another user"; return; }
    executable=$(readlink "/proc/$1/exe" 2>/dev/null)
    executable=${executable% (deleted)}
    case ${executable##*/} in clio_run | chimaera | chimaera_*) return ;; esac
    [ "$executable" != "$(readlink -f "$(command -v "$program")")" ] || return 0
    echo "runs ${executable:-an unknown program}, which is no runtime"
}

end_leftovers() {
    left=50
    told=
    while pids=$(listeners) && [ -n "$pids" ]; do
        for pid in $pids; do
            objection=$(objection "$pid")
            if [ -n "$objection" ]; then
                say "port $port is held by process $pid, which $objection; it is left alone"
                return
            fi
            if [ "$left" -eq 0 ]; then
                say "ending process $pid, which still holds port $port"
                kill -KILL "$pid"
            elif [ -z "$told" ]; then
                say "process $pid still holds port $port; asking it to end"
                kill -TERM "$pid"
                kill -CONT "$pid"
            fi
        done
        told=1
        left=$((left - 1))
        [ "$left" -ge -20 ] || return
        sleep 0.1
    done
}

say "stop"
# shellcheck disable=SC2086 # the prefix is one word or none
timeout -k 2 "$limit" "$program" $prefix stop </dev/null
say "stop ended with exit code $?"
end_leftovers
say "$program ${prefix:+$prefix }$start"
# shellcheck disable=SC2086
exec "$program" $prefix "$start" </dev/null
SEQUENCE
)

case $action in
    shutdown)
        if [ "$custom" = 1 ]; then
            run_custom supervised
        else
            find_program
            find_words
            # shellcheck disable=SC2086
            supervised "$program" $prefix stop
        fi
        ;;
    restart)
        mkdir -p "${log%/*}" || fail 1 "cannot create the directory of the log file $log"
        if [ -s "$log" ]; then mv -f "$log" "$log.1"; fi
        : >"$log" || fail 1 "cannot write the log file $log"
        if [ "$custom" = 1 ]; then
            detached() {
                command -v "$1" >/dev/null 2>&1 || fail 127 "$1: command not found on this node"
                setsid "$@" </dev/null >>"$log" 2>&1 &
            }
            run_custom detached
        else
            find_program
            find_words
            setsid /bin/sh -c "$sequence" clio-control-api "$client_port" "$program" "$prefix" "$start" "$stop_limit" \
                </dev/null >>"$log" 2>&1 &
        fi
        printf 'restart started (process %s), output in %s\n' "$!" "$log"
        exit 0
        ;;
    log)
        [ -r "$log" ] || fail 1 "there is no log file $log"
        tail -c 8192 "$log"
        exit
        ;;
    *) fail 2 "unknown action" ;;
esac
