#!/usr/bin/env bash
# A night for cron: expire, then reindex, each under an id of the day, so that a retry resumes. Only exit code 5 is
# tried again. Silent when all went well; else what failed goes to stderr, and cron mails it. Exit code: the job's.
#
#   conf/nightly.sh conf/prod.yaml                       expire, then reindex
#   conf/nightly.sh conf/prod.yaml sync 'verify --audit' other jobs in their place
#
# In the environment, beside the secrets:
#   NIGHTLY_SUBMIT         starts a job, without its script: spark-submit --properties-file conf/spark-yarn.conf …
#                          (unset: python -m jobs.NAME)
#   NIGHTLY_JOBS           where spark-submit finds the scripts (jobs; on Kubernetes local:///opt/face-reindex/jobs)
#   NIGHTLY_STATUS_CONFIG, NIGHTLY_STATUS_PROPERTIES   where CONFIG is a path on the cluster, or the warehouse needs Spark
#                          properties (S3): by which settings and properties `python -m jobs.runs.submit` asks the `runs`
#                          table how a job has ended, where spark-submit did not live to say it
#   NIGHTLY_ID             what stands behind the job's name in a run's id (the UTC date)
#   NIGHTLY_RETRIES, NIGHTLY_WAIT_S   how often (5), and the first wait (60 s; the n-th is n times as long)
#   NIGHTLY_LOG            folder of the logs (logs): nightly.log has a line an attempt, ID.log all that was said
#   NIGHTLY_UMASK          what others may not do with the logs and with what a JVM of spark-submit writes (077)
set -euo pipefail
umask "${NIGHTLY_UMASK:-077}"

config="${1:?usage: nightly.sh CONFIG [JOB …]}"
shift
(($#)) || set -- expire reindex
day="${NIGHTLY_ID:-$(date -u +%F)}"
retries="${NIGHTLY_RETRIES:-5}"
log="${NIGHTLY_LOG:-logs}"
read -r -a submit <<<"${NIGHTLY_SUBMIT:-}"

mkdir -p "$log"
lock="$log/${1%% *}.lock"
exec 9>>"$lock"
if ! flock --nonblock 9; then
  echo "nightly: '$*' is still running from the last time ($lock)" >&2
  exit 5
fi

start() { # id, job, its options
  local id="$1" what=(python -m "jobs.$2")
  if ((${#submit[@]})); then
    # spark-submit's own exit code is not the job's, where the driver runs on the cluster.
    what=(python -m jobs.runs.submit -- "${submit[@]}" "${NIGHTLY_JOBS:-jobs}/$2.py")
  fi
  # 9>&-: a process that outlives this script must not hold its lock.
  "${what[@]}" --config "$config" --run-id "$id" "${@:3}" 9>&-
}

attempt() { # id, job, its options; prints the last line of what it said
  local id="$1" code=0 said
  said="$(start "$@" 2>>"$log/$id.log")" || code=$?
  printf '%s\n' "$said" >>"$log/$id.log"
  printf '%s\n' "${said##*$'\n'}"
  return "$code"
}

night() { # job, its options
  local id try=0 code said
  id="$(tr -s ' -' '-' <<<"$*")-$day"
  while :; do
    code=0
    said="$(attempt "$id" "$@")" || code=$?
    printf '%s %s exit=%d %s\n' "$(date -u +%FT%TZ)" "$id" "$code" "$said" >>"$log/nightly.log"
    if ((code == 0)); then return; fi
    if ((code != 5 || try == retries)); then break; fi
    try=$((try + 1))
    sleep $((${NIGHTLY_WAIT_S:-60} * try))
  done
  echo "nightly: $id ended with exit code $code, tried $((try + 1)) times. Next step: docs/operations.md" >&2
  tail -n 20 "$log/$id.log" >&2
  exit "$code"
}

for job; do
  read -r -a words <<<"$job"
  night "${words[@]}"
done
