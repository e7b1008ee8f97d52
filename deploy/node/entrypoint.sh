#!/bin/sh
# A cluster node: one runtime, and sshd so that it can be stopped and started from outside.
#
#   clio-node              runtime and sshd, until SIGTERM; the container outlives the runtime
#   clio-node COMMAND ...  that command instead
#
# /keys (a volume that all nodes and the control API share): id_ed25519 is the key that logs in. It is taken if it is
# there, otherwise the first node makes it. The nodes' host keys stay there too, so that a node that is made
# anew is still the same host to who knows it.
set -eu
[ $# -eq 0 ] || exec "$@"

keys=${CLIO_KEYS:-/keys}
state=/var/lib/clio
log=$state/runtime.log
say() { printf 'clio-node: %s\n' "$*"; }

make_key() { # FILE: an unencrypted key; appears complete or not at all
    [ -e "$1" ] && return
    ssh-keygen -q -t ed25519 -N '' -C "$(basename "$1")" -f "$1.$name"
    # ln fails where another node was first.
    if ln "$1.$name" "$1" 2>/dev/null; then mv -f "$1.$name.pub" "$1.pub"; else rm -f "$1.$name.pub"; fi
    rm -f "$1.$name"
}

address=$(hostname -i | cut -d ' ' -f 1)
name=${CLIO_NODE_NAME:-$address}
mkdir -p "$state/store" "$state/conf" "$keys/hosts"
make_key "$keys/id_ed25519"
make_key "$keys/hosts/$name"
# The public half of a key that was put there may be missing.
ssh-keygen -y -f "$keys/id_ed25519" >"$state/authorized_keys"

cat >"$state/sshd_config" <<CONFIG
Port ${CLIO_SSH_PORT:-2222}
HostKey $keys/hosts/$name
AuthorizedKeysFile $state/authorized_keys
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
say "runtime started, log in $log; sshd on port ${CLIO_SSH_PORT:-2222}"
"$(command -v sshd)" -D -e -f "$state/sshd_config" &
sshd=$!
status=0
wait "$sshd" || status=$?
say "sshd ended with exit code $status"
exit 1
