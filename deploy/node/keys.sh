#!/bin/sh
# Makes the keys of the interactive cluster, before and apart from its nodes, so that none of them sees another's:
#
#   clio-keys ADDRESS...   addresses of node 1, node 2, ...
#
# /keys     the control API's: id_ed25519, which logs in to the nodes and is taken if it is there, and
#           cluster_known_hosts, the public host keys of all nodes
# /nodes/N  node N's: host_key, and authorized_keys, the public half of the key that logs in
#
# Keys that are there stay, so that a node that is made anew is still the same host to who knows it.
set -eu
umask 077

say() { printf 'clio-keys: %s\n' "$*"; }

make_key() { # FILE COMMENT: an unencrypted key; appears complete or not at all
    [ ! -e "$1" ] || return 0
    rm -f "$1.new" "$1.new.pub"
    ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$1.new"
    rm -f "$1.new.pub"
    mv "$1.new" "$1"
    say "made $1"
}

put() { # FILE TEXT: replaces the file in one step
    printf '%s\n' "$2" >"$1.new"
    mv -f "$1.new" "$1"
}

make_key /keys/id_ed25519 control-api
login=$(ssh-keygen -y -f /keys/id_ed25519)

known=
number=0
for address in "$@"; do
    number=$((number + 1))
    node=/nodes/$number
    make_key "$node/host_key" "$address"
    public=$(ssh-keygen -y -f "$node/host_key" | cut -d ' ' -f 1,2)
    [ -n "$public" ] || exit 1
    known="$known${known:+
}[$address]:2222 $public"
    put "$node/authorized_keys" "$login"
done
put /keys/cluster_known_hosts "$known"
