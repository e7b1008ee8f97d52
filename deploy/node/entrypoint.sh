#!/bin/sh
# A cluster node: one runtime, and sshd so that it can be stopped and started from outside.
#
#   clio-node              runtime and sshd, until SIGTERM; the container outlives the runtime
#   clio-node COMMAND ...  that command instead
#
# /keys is this node's alone and not written here: its host_key, and authorized_keys with the public half of the key
# that logs in. clio-keys makes both.
set -eu
[ $# -eq 0 ] || exec "$@"

keys=/keys
state=/var/lib/clio
log=$state/runtime.log
say() { printf 'clio-node: %s\n' "$*"; }

for file in host_key authorized_keys; do
    if [ ! -r "$keys/$file" ]; then
        say "error: $keys/$file is missing: let clio-keys make it, as the service keys of docker-compose.yml does" >&2
        exit 1
    fi
done
mkdir -p "$state/store" "$state/conf"

cat >"$state/sshd_config" <<CONFIG
Port 2222
HostKey $keys/host_key
AuthorizedKeysFile $keys/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding no
X11Forwarding no
PrintMotd no
# The runtime's commands work in an SSH session as they do here.
SetEnv PATH=$PATH CLIO_SERVER_CONF=$CLIO_SERVER_CONF USER=$USER
CONFIG

stop() {
    trap '' TERM INT
    say "stopping"
    kill -TERM -1 2>/dev/null || true
    left=30
    while [ "$left" -gt 0 ] && grep -qsx clio_run /proc/[0-9]*/comm; do
        left=$((left - 1))
        sleep 0.1
    done
    exit 0
}
trap stop TERM INT

# An idle runtime waits 25 microseconds at a time; with 1 ms of slack it takes a seventh of the CPU. Children inherit it.
echo 1000000 2>/dev/null >/proc/self/timerslack_ns || true

: >>"$log"
tail -n 0 -F "$log" 2>/dev/null &
setsid clio_run start </dev/null >>"$log" 2>&1 &
say "runtime started, log in $log; sshd on port 2222"
"$(command -v sshd)" -D -e -f "$state/sshd_config" &
sshd=$!
status=0
wait "$sshd" || status=$?
say "sshd ended with exit code $status"
exit 1
