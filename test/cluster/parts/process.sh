# shellcheck shell=bash
# Starting and stopping the node's processes. A process is known by its pid and its start time, so that
# a pid that the kernel has given to somebody else is never touched. Sourced by up.sh and down.sh.

PIDS=$STATE/pids
LOGS=$STATE/logs

# in_node COMMAND…: runs the command in the node's network namespace.
in_node() {
  nsenter --net="/run/netns/$NETNS" "$@"
}

# run NAME COMMAND…: starts a process in the node's network namespace; the log is kept.
run() {
  local name=$1
  shift
  # A clean environment: a proxy variable of the caller must not reach a component; nor our locks.
  setsid nsenter --net="/run/netns/$NETNS" \
    env -i PATH="$PATH" HOME="$STATE" LANG=C.UTF-8 TMPDIR="$STATE/tmp" "$@" \
    >"$LOGS/$name.log" 2>&1 </dev/null 7>&- 8>&- 9>&- &
  echo "$! $(start_time $!)" >"$PIDS/$name"
}

# start_time PID: clock ticks since boot, or nothing when there is no such process.
start_time() {
  { sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; } 2>/dev/null || true
}

# alive NAME: whether the process that run started still runs. A zombie does not, once all its threads
# are: until then they hold its sockets, and the next process could not listen.
alive() {
  local pid started
  [[ -e $PIDS/$1 ]] || return 1
  read -r pid started <"$PIDS/$1"
  is_running "$pid" "$started"
}

is_running() {
  [[ -n ${2:-} && $(start_time "$1") == "$2" ]] &&
    grep -hs '^State:' /proc/"$1"/task/*/status | grep -qvE $'\t[ZX] '
}

# must_live NAME…: ends the script with the tail of the log when one is dead.
must_live() {
  local name
  for name in "$@"; do
    alive "$name" && continue
    tail -15 "$LOGS/$name.log" >&2
    die "$name ended; its log: $LOGS/$name.log"
  done
}

# stop NAME: asks, waits three seconds, then kills.
stop() {
  local pid started _
  alive "$1" || return 0
  read -r pid started <"$PIDS/$1"
  kill "$pid" 2>/dev/null || return 0
  for _ in {1..60}; do
    is_running "$pid" "$started" || return 0
    sleep 0.05
  done
  kill -9 "$pid" 2>/dev/null || true
}
