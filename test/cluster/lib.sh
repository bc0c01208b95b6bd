# shellcheck shell=bash
# Small helpers that every script here shares. Sourced after env.sh.

STARTED_AT=$(date +%s%N)

# say MESSAGE: one line with the seconds since the script started.
say() {
  local ms=$((($(date +%s%N) - STARTED_AT) / 1000000))
  printf '%4d.%02ds %s\n' $((ms / 1000)) $((ms % 1000 / 10)) "$*"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# require COMMAND=PACKAGE…: installs the packages whose command is missing, or names all of them.
# COMMAND may be an absolute path (a folder or file that the package brings).
require() {
  local pair command missing=()
  for pair in "$@"; do
    command=${pair%%=*}
    if [[ $command == /* ]]; then
      [[ -e $command ]] || missing+=("${pair#*=}")
    else
      command -v "$command" >/dev/null || missing+=("${pair#*=}")
    fi
  done
  [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
}

install_packages() {
  if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    die "missing: $* (Debian package names; root on Debian or Ubuntu installs them by itself)"
  fi
  say "installing $*"
  local log
  log=$(mktemp)
  local options=(-qq -y --no-install-recommends)
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-get install "${options[@]}" "$@" >"$log" 2>&1; then
    apt-get update -qq >>"$log" 2>&1 || true
    if ! apt-get install "${options[@]}" "$@" >>"$log" 2>&1; then
      tail -15 "$log" >&2
      rm -f "$log"
      die "could not install: $*"
    fi
  fi
  rm -f "$log"
}

# until_ok WHAT SECONDS COMMAND…: repeats the command until it succeeds. Returns 1 when time is up.
# By the clock, not by tries: a command may itself wait.
until_ok() {
  local what=$1 end=$((SECONDS + $2))
  shift 2
  while ((SECONDS <= end)); do
    if "$@" >/dev/null 2>&1; then
      say "$what"
      return 0
    fi
    sleep 0.1
  done
  printf 'error: %s: not so in time\n' "$what" >&2
  return 1
}

# hash_files: reads file names on stdin (NUL separated), prints a short hash over names and contents.
hash_files() {
  LC_ALL=C sort -zu | xargs -0 -r sha256sum | sha256sum | cut -c1-12
}

# locked: only one of up.sh, down.sh runs at a time. Held until the script ends; children must close 7.
locked() {
  mkdir -p "$DROVER_TEST_BED"
  exec 7>"$DROVER_TEST_BED/.cluster.lock"
  flock 7
}

# mode: how the cluster that is up came to be: own, kind or given; nothing when none is.
mode() {
  cat "$STATE/mode" 2>/dev/null || true
}
