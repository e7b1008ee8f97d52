#!/bin/sh
# Prepares a machine to run the project. `make` calls it; it can be run by hand too.
#
#   scripts/bootstrap.sh packages GROUP   install the system packages of GROUP that are missing
#   scripts/bootstrap.sh venv [DIR]       create the virtual environment (default .venv) and install the project
#   scripts/bootstrap.sh python           print the Python interpreter that would be used
#
# Environment: PYTHON = interpreter to use instead of searching for one (3.10 or newer).
# Packages come from wherever apt and pip are configured to take them.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
list=$root/scripts/system-packages.txt
policy=/usr/sbin/policy-rc.d
policy_saved=$policy.before-clio-exporter
policy_marker='# clio-exporter: services stay stopped while its packages are installed'
# Daemons such as sshd live in sbin, which an ordinary user's PATH lacks on Debian.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# --- Python -----------------------------------------------------------------

usable_python() { # INTERPRETER: new enough, and able to create a virtual environment with pip
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable_python "$PYTHON" || return 1
        command -v "$PYTHON"
        return 0
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
        if usable_python "$name"; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

# --- System packages --------------------------------------------------------

rows() { # GROUP: "package|present when" a line, without blanks around
    sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]*|[[:space:]]*/|/g' "$list" |
        awk -F'|' -v group="$1" 'index(" " $3 " ", " " group " ") { print $1 "|" $2 }'
}

present() { # PRESENT-WHEN
    case $1 in
        python:*) find_python >/dev/null ;;
        *) for name in $1; do command -v "$name" >/dev/null 2>&1 || return 1; done ;;
    esac
}

missing_packages() { # GROUP
    rows "$1" | while IFS='|' read -r package condition; do
        present "$condition" || printf '%s\n' "$package"
    done
}

is_installed() { # PACKAGE
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

restore_policy() {
    if [ -f "$policy" ] && grep -qF "$policy_marker" "$policy"; then rm -f "$policy"; fi
    if [ -e "$policy_saved" ] || [ -h "$policy_saved" ]; then mv -f "$policy_saved" "$policy"; fi
}

# Debian starts and enables a service as soon as its package is installed. The tests start their own processes on their
# own ports, so nothing of this kind may appear on somebody's machine: policy-rc.d refuses every start during the
# installation, and what was enabled for the next boot is disabled again. Packages that were there before are not touched.
forbid_service_starts() {
    restore_policy # of a run that was killed
    if [ -e "$policy" ] || [ -h "$policy" ]; then mv "$policy" "$policy_saved"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_marker" >"$policy"
    chmod 755 "$policy"
}

disable_services() { # PACKAGE that was installed a moment ago
    dpkg -L "$1" | sed -n -e 's#^.*/systemd/system/\([^/@]*\.\(service\|socket\|timer\)\)$#\1#p' | while read -r unit; do
        if command -v systemctl >/dev/null 2>&1; then systemctl disable "$unit" >/dev/null 2>&1 || true; fi
    done
    dpkg -L "$1" | sed -n -e 's#^/etc/init\.d/\([^/]*\)$#\1#p' | while read -r service; do
        update-rc.d "$service" disable >/dev/null 2>&1 || true
    done
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@" </dev/null; }

install_packages() { # PACKAGE...: one apt call each, so that one unknown package does not cost the others
    trap restore_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    forbid_service_starts
    failed=
    log=$(mktemp)
    apt update >"$log" 2>&1 || { tail -n 5 "$log" >&2; say "apt-get update failed; going on with the lists there are"; }
    for package in "$@"; do
        if is_installed "$package"; then continue; fi
        say "installing the system package $package"
        if apt install -y --no-install-recommends "$package" >"$log" 2>&1; then
            disable_services "$package"
        else
            tail -n 15 "$log" >&2
            failed="$failed $package"
        fi
    done
    rm -f "$log"
    [ -z "$failed" ] || { say "could not install:$failed"; return 1; }
}

packages() { # GROUP; fails only where the project cannot work without them
    [ -n "$(rows "$1")" ] || die "no system packages are listed for the group '$1' (groups: setup, test, demo)"
    missing=$(missing_packages "$1" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        say "missing: $missing (Debian's names). There is no apt-get here: install them with this system's package manager."
    elif [ "$(id -u)" -ne 0 ]; then
        say "missing system packages: $missing. To install them, without starting their services, run"
        say "    sudo sh $root/scripts/bootstrap.sh packages $1"
    else
        # The lock (on the directory of policy-rc.d) keeps two runs from saving each other's file.
        # shellcheck disable=SC2086 # a list of package names
        if flock -o -w 900 "${policy%/*}" sh "$0" install-locked $missing && [ -z "$(missing_packages "$1")" ]; then return 0; fi
    fi
    case $1 in
        setup) return 1 ;;
        test) say "going on; the tests that need them are skipped and say so (and fail where CI=true)" ;;
        *) say "going on without them" ;;
    esac
}

# --- Virtual environment ----------------------------------------------------

venv() { # DIR
    python=$(find_python) || {
        [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not Python 3.10 or newer with the venv and ensurepip modules"
        packages setup || true
        python=$(find_python) || die "no Python 3.10 or newer with the venv and ensurepip modules was found;" \
            "install python3 and python3-venv, or name an interpreter: make setup PYTHON=/path/to/python3"
    }
    if ! "$1/bin/python" -m pip --version >/dev/null 2>&1; then
        if [ -e "$1" ] && [ ! -f "$1/pyvenv.cfg" ]; then
            die "$1 exists and is not a virtual environment; move it away or set VENV=another-directory"
        fi
        say "creating $1 with $python ($("$python" -c 'import platform; print(platform.python_version())'))"
        "$python" -m venv --clear "$1"
    fi
    say "installing the project and its dependencies into $1"
    cd "$root"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint constraints.txt --editable '.[dev]'
    say "done"
}

case ${1:-} in
    packages) packages "${2:?"usage: bootstrap.sh packages GROUP"}" ;;
    install-locked) shift; install_packages "$@" ;;
    venv) venv "${2:-$root/.venv}" ;;
    python) find_python || die "no Python 3.10 or newer with the venv and ensurepip modules was found" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
