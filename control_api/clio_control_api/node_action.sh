# Runs on a node, read by /bin/sh from its standard input. The lines before this one, written by
# clio_control_api.node_script, set (all values quoted for the shell, none from a request):
#   action       shutdown, restart, log or outcome (what became of a restart)
#   id           of the action, hexadecimal
#   by           who asked for it, and the host of the control API: two words
#   program      the runtime's command, empty to look for it
#   stop_limit   seconds that stopping may take before a restart ends the process itself
#   start_limit  seconds that a restarted runtime has until it listens
#   patience     seconds that 'outcome' waits for the end
#   client_port  TCP port of the runtime's client socket
#   locks        directory of locks and results, empty for the default
#   log          file for the output of a restarted runtime, empty for the default
#   log_name     name of the default log file
#   custom       1 when run_custom is the configured command
# Standard input stays open while the caller waits; its end means that the caller has gone.
#
# One action at a time: whoever holds flock(1)'s lock on LOCKS/HOST-PORT.lock acts. A restart's detached
# sequence inherits the lock as descriptor 9 and holds it to its end; then LOCKS/result-ID tells the outcome.
# The lock file says who holds it: id, action, by, since (seconds of the epoch), on a second line the step.
# What is meant for the control API stands on standard error, on lines that begin with '#clio-ID '.

umask 077
[ -n "$log" ] || log=${HOME:-/tmp}/.clio/$log_name

fail() {
    status=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$status"
}

report() { printf '#clio-%s %s\n' "$id" "$*" >&2; }

find_locks() {
    [ -n "$locks" ] || locks=${HOME:?has no value on this node}/.clio/control
    lock=$locks/$(uname -n | tr -c 'A-Za-z0-9.\n-' _)-$client_port.lock
    result=$locks/result-$id
}

# Takes the node's lock as descriptor 9, or ends: exit code 75 when another holds it, 69 when there is no locking.
take_lock() {
    if ! command -v flock >/dev/null 2>&1; then
        report unlocked
        fail 69 "flock is missing on this node: install it (package util-linux), for without it actions could overlap"
    fi
    find_locks
    mkdir -p "$locks" || fail 69 "cannot create the directory of locks $locks: set lock_directory"
    if [ -z "$(find "$locks/." -prune -type d -user "$(id -u)" ! -perm -020 ! -perm -002)" ]; then
        report unlocked
        fail 69 "others can write in $locks: make it a directory that only $(id -un) can write in, or set lock_directory"
    fi
    { : >>"$lock"; } || fail 69 "cannot write the lock file $lock: set lock_directory"
    exec 9>>"$lock"
    # Who asks for the outcome of a restart holds the lock for an instant.
    tries=6
    until trouble=$(flock -n 9 2>&1); do
        if [ -n "$trouble" ]; then
            report unlocked
            fail 69 "$lock cannot be locked ($trouble): set lock_directory to one on a local disk"
        fi
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            report busy "$(date +%s)" "$(tr '\n' ' ' <"$lock")"
            fail 75 "another action is under way on this node"
        fi
        sleep 0.2
    done
    note="$id $action $by $(date +%s)"
    printf '%s\n%s\n' "$note" "$action" >"$lock"
    find "$locks" -name 'result-*' -mtime +1 -exec rm -f {} +
}

# Whether nobody holds the lock.
is_free() { [ ! -e "$lock" ] || (flock -n -s 9) 2>/dev/null 9<"$lock"; }

# Tells the control API what has become of the restart `id`; waits `patience` seconds for its end.
tell_outcome() {
    find_locks
    end=$(($(date +%s) + patience))
    while [ ! -e "$result" ]; do
        if is_free && [ ! -e "$result" ]; then
            report lost
            return
        fi
        case $(cat "$lock" 2>/dev/null) in
            "$id "* | '') ;;
            *) [ -e "$result" ] || { report lost; return; } ;;
        esac
        if [ "$(date +%s)" -ge "$end" ]; then
            report running "$(sed -n 2p "$lock")"
            return
        fi
        sleep 0.3
    done
    report ended "$(head -n 1 "$result")"
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
    setsid "$@" </dev/null 3<&- 9>&- &
    child=$!
    {
        cat <&3
        kill -TERM "-$child"
        sleep 2
        kill -KILL "-$child"
    } >/dev/null 2>&1 9>&- &
    watcher=$!
    exec 3<&-
    wait "$child"
    status=$?
    kill "$watcher" 2>/dev/null
    : >"$lock"
    exit "$status"
}

# What the detached shell runs. $1 to $7: own or custom, port, stop_limit, start_limit, lock file, its note,
# result file; then the program, the prefix (may be empty) and the start word, or the configured command.
sequence=$(cat <<'SEQUENCE'
mode=$1 port=$2 stop_limit=$3 start_limit=$4 lock=$5 note=$6 result=$7
shift 7
began=$(date +%s)
say() { printf '%s control API: %s\n' "$(date '+%Y-%m-%dT%H:%M:%S%z')" "$*"; }
step() {
    say "$*"
    printf '%s\n%s\n' "$note" "$*" >"$lock"
}

# $1: succeeded or failed, $2: what happened.
finish() {
    trap '' HUP INT TERM
    say "$1: $2"
    printf '%s %s %s\n' "$1" "$(($(date +%s) - began))" "$2" >"$result.new" && mv -f "$result.new" "$result"
    : >"$lock"
    exit
}
trap 'finish failed "the restart was ended by a signal"' HUP INT TERM

# Inodes of the sockets that listen on the port, whoever's they are.
sockets() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$(printf '%04X' "$port")" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }'
}

is_alive() {
    case $(cat "/proc/$1/stat" 2>/dev/null) in
        '' | *') X '*) return 1 ;;
        *') Z '*) # its first thread has ended; with others alive it still runs
            set -- "/proc/$1/task"/*
            [ "$#" -gt 1 ]
            ;;
    esac
}

# Process ids of this user's processes that listen on the port.
listeners() {
    for inode in $(sockets); do
        found=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null)
        # A process whose first thread has ended shows them under the others alone.
        [ -n "$found" ] ||
            found=$(find /proc/[0-9]*/task/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null)
        if [ -n "$found" ]; then printf '%s\n' "$found"; fi
    done | cut -d / -f 3 | sort -u
}

# Why a process may not be ended; nothing where it is a runtime of this user. What its command line says
# does not count: there may be 'clio' in any path.
objection() {
    user=$(awk '$1 == "Uid:" { print $3 }' "/proc/$1/status" 2>/dev/null)
    [ "$user" = "$(id -u)" ] || { echo "belongs to another user"; return; }
    for thread in "/proc/$1" "/proc/$1/task"/*; do # the first thread of one that is ending has none
        executable=$(readlink "$thread/exe" 2>/dev/null) && break
    done
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

if [ "$mode" = own ]; then
    program=$1 prefix=$2 start=$3
    step "stopping the runtime"
    # shellcheck disable=SC2086 # the prefix is one word or none
    timeout -k 2 "$stop_limit" "$program" $prefix stop </dev/null 9>&-
    say "stop ended with exit code $?"
    end_leftovers
    # shellcheck disable=SC2086
    set -- "$program" $prefix "$start"
fi
before=" $(sockets | tr '\n' ' ')"
step "starting: $*"
setsid "$@" </dev/null 9>&- &
child=$! ended=
deadline=$(($(date +%s) + start_limit))
while :; do
    for inode in $(sockets); do
        case $before in
            *" $inode "*) ;;
            *) finish succeeded "a new runtime listens on port $port" ;;
        esac
    done
    if [ -z "$ended" ] && ! is_alive "$child"; then
        ended=$(date +%s)
        wait "$child"
        code=$?
        [ "$code" -eq 0 ] || finish failed "$1 ended with exit code $code"
        # A start that goes into the background leaves its runtime to listen soon; a command may take its time.
        if [ "$mode" = own ] && [ "$deadline" -gt $((ended + 10)) ]; then deadline=$((ended + 10)); fi
    fi
    if [ "$(date +%s)" -ge "$deadline" ]; then
        [ -z "$ended" ] || finish failed "$1 ended, and no new runtime listens on port $port"
        finish failed "no new runtime listens on port $port after $start_limit s"
    fi
    sleep 0.2
done
SEQUENCE
)

case $action in
    shutdown)
        take_lock
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
        take_lock
        detached() {
            mode=$1
            shift
            command -v "$1" >/dev/null 2>&1 || fail 127 "$1: command not found on this node"
            mkdir -p "${log%/*}" || fail 1 "cannot create the directory of the log file $log"
            if [ -s "$log" ]; then mv -f "$log" "$log.1"; fi
            : >"$log" || fail 1 "cannot write the log file $log"
            setsid /bin/sh -c "$sequence" clio-control-api "$mode" "$client_port" "$stop_limit" "$start_limit" \
                "$lock" "$note" "$result" "$@" </dev/null >>"$log" 2>&1 9>&9 &
        }
        custom_restart() { detached custom "$@"; }
        if [ "$custom" = 1 ]; then
            run_custom custom_restart
        else
            find_program
            find_words
            detached own "$program" "$prefix" "$start"
        fi
        report started
        printf 'restart started (process %s), output in %s\n' "$!" "$log"
        exit 0
        ;;
    outcome)
        tell_outcome
        exit 0
        ;;
    log)
        [ -r "$log" ] || fail 1 "there is no log file $log"
        tail -c 8192 "$log"
        exit
        ;;
    *) fail 2 "unknown action" ;;
esac
