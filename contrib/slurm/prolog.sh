#!/bin/sh
# Slurm's prolog on a node: writes down whose job is there, for `clio-exporter --collector.node.job-directory`.
#
# slurm.conf: Prolog=/etc/slurm/clio-prolog.sh and PrologFlags=Alloc, so that it runs on all nodes of a job, not only
# where a step starts. Slurm runs it as root. The directory is one that the exporter's host sees too; epilog.sh, which
# removes the file, has to name the same.
# It always succeeds: Slurm takes a node out of service whose prolog fails.
set -u

PATH=/usr/bin:/bin
directory=${CLIO_JOB_DIRECTORY:-/var/lib/clio-exporter/jobs}

[ -n "${SLURM_JOB_ID:-}" ] || exit 0
umask 022
node=${SLURMD_NODENAME:-$(hostname)}
# All that a hostfile may call this node.
names="$node $(hostname) $(hostname -I 2>/dev/null || true)"
file=$directory/$SLURM_JOB_ID.$node
{
    printf 'job_id=%s\n' "$SLURM_JOB_ID"
    printf 'user=%s\n' "${SLURM_JOB_USER:-${SLURM_JOB_UID:-?}}"
    [ -z "${SLURM_JOB_NAME:-}" ] || printf 'job_name=%s\n' "$SLURM_JOB_NAME"
    printf 'node=%s\n' "$names"
} 2>/dev/null >"$file.tmp" && mv -f "$file.tmp" "$file.job"
exit 0
