#!/bin/sh
# Slurm's epilog on a node: removes what prolog.sh wrote, and ends what `clio-exporter job start` has left running there
# when a job is over.
#
# slurm.conf: Epilog=/etc/slurm/clio-epilog.sh. Slurm runs it as root on each of the job's nodes, with SLURM_JOB_ID.
#
# Where Slurm follows processes by cgroups (ProctrackType=proctrack/cgroup) nothing is left. Elsewhere, processes in
# sessions of their own outlive a job that was cancelled: they are found by their environment, which `job start` marks,
# and get SIGTERM, so that Prometheus writes all it has and the exporter removes its target file.
# It always succeeds: Slurm takes a node out of service whose epilog fails.
set -u

PATH=/usr/bin:/bin
directory=${CLIO_JOB_DIRECTORY:-/var/lib/clio-exporter/jobs}
patience=20 # seconds between SIGTERM and SIGKILL

left() { # process ids of the job's, one a line; an ended process that nobody has reaped has no environment
    grep -slzx "SLURM_JOB_ID=$SLURM_JOB_ID" /proc/[0-9]*/environ |
        xargs -r grep -slz '^CLIO_EXPORTER_JOB_PROCESS=' |
        cut -d/ -f3
}

end() { # SIGNAL
    for pid in $(left); do kill "-$1" "$pid" 2>/dev/null; done
}

[ -n "${SLURM_JOB_ID:-}" ] || exit 0
rm -f "$directory/$SLURM_JOB_ID.${SLURMD_NODENAME:-$(hostname)}.job"
if [ -n "$(left)" ]; then
    end TERM
    deadline=$(($(date +%s) + patience))
    while [ -n "$(left)" ] && [ "$(date +%s)" -lt "$deadline" ]; do sleep 0.2; done
    end KILL
fi
exit 0
