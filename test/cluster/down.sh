#!/bin/bash
# Takes the cluster down and leaves nothing behind: no process, mount, interface, cgroup, firewall rule or
# changed sysctl. The caches (programs, images) stay.
#
#   down.sh               safe to run twice, and after a failed start
#   down.sh --keep-logs   moves the logs to …/test-bed/last-logs first
#
# Promises: touches only what up.sh made: processes by pid and start time, those in our cgroup and network
# namespace, and shims of our containerd. At the end it looks whether anything is left, names it, and ends
# with 1. A cluster that was handed in stays as it is.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/lib.sh"
. "$CLUSTER_DIR/parts/process.sh"
. "$CLUSTER_DIR/parts/host.sh"
. "$CLUSTER_DIR/parts/kind.sh"

# What makes pods ends before the pods, these before the runtime, and the store last.
MAKERS=(kubelet cilium-agent cilium-operator kube-controller-manager kube-scheduler kube-proxy coredns)
STORES=(containerd kube-apiserver etcd)

# --- finding what is ours --------------------------------------------------------------------------

cgroup_dirs() {
  local dir
  for dir in /sys/fs/cgroup/"$CGROUP" /sys/fs/cgroup/*/"$CGROUP"; do
    [[ ! -d $dir ]] || find "$dir" -depth -type d
  done
}

cgroup_pids() {
  cgroup_dirs | while read -r dir; do cat "$dir/cgroup.procs" 2>/dev/null || true; done | sort -u
}

# Shims whose address is our containerd's socket. They outlive containerd by design.
# One grep for all processes: a loop takes a minute on a machine with thousands of them.
shim_pids() {
  local pid
  grep -lsaF -- "$CONTAINERD_SOCK" /proc/[0-9]*/cmdline | cut -d/ -f3 | while read -r pid; do
    ! grep -qsaF containerd-shim-runc-v2 "/proc/$pid/cmdline" || echo "$pid"
  done
}

namespace_pids() {
  [[ ! -e /run/netns/$NETNS ]] || ip netns pids "$NETNS" 2>/dev/null || true
}

our_mounts() {
  awk -v dir="$STATE/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r
}

# --- taking it down --------------------------------------------------------------------------------

# kill_until_gone LISTER: kills what the lister prints until it prints nothing, for at most five seconds.
kill_until_gone() {
  local pids _
  for _ in {1..50}; do
    pids=$("$1")
    [[ -n $pids ]] || return 0
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
    sleep 0.1
  done
}

stop_processes() {
  local name file
  for name in "${MAKERS[@]}"; do stop "$name"; done
  kill_until_gone cgroup_pids
  kill_until_gone shim_pids
  for name in "${STORES[@]}"; do stop "$name"; done
  for file in "$PIDS"/*; do [[ ! -e $file ]] || stop "${file##*/}"; done
  kill_until_gone namespace_pids
}

unmount_all() {
  local path _
  for _ in 1 2 3; do
    our_mounts | while read -r path; do umount -l "$path" 2>/dev/null || true; done
  done
}

remove_cgroups() {
  local dir _
  for _ in {1..20}; do
    [[ -n $(cgroup_dirs) ]] || return 0
    cgroup_dirs | while read -r dir; do rmdir "$dir" 2>/dev/null || true; done
    sleep 0.05
  done
}

# The namespace takes the bridge, the veths, the firewall rules and conntrack with it.
remove_network() {
  ip link del "$HOST_LINK" 2>/dev/null || true
  ip netns del "$NETNS" 2>/dev/null || true
  if [[ -e $STATE/made-run-netns && -d /run/netns && -z $(ls /run/netns) ]]; then
    umount /run/netns 2>/dev/null || true
    rmdir /run/netns 2>/dev/null || true
  fi
}

remove_cilium_files() {
  [[ ! -e $STATE/made-run-cilium ]] || rm -rf /run/cilium
}

sysctl_files() {
  [[ ! -d $STATE/sysctl ]] || (cd "$STATE/sysctl" && find . -type f | sed 's|^\./||')
}

# Not `cmp`: files below /proc say that they are empty.
sysctl_same() {
  [[ $(<"$STATE/sysctl/$1") == "$(<"/proc/sys/$1")" ]]
}

restore_sysctls() {
  local key
  sysctl_files | while read -r key; do
    sysctl_same "$key" ||
      cat "$STATE/sysctl/$key" >"/proc/sys/$key" 2>/dev/null || true
  done
}

# --- looking whether anything is left --------------------------------------------------------------

leftovers() {
  local file pid started key
  for file in "$PIDS"/*; do
    [[ -e $file ]] || continue
    read -r pid started <"$file"
    ! is_running "$pid" "$started" || echo "process $pid (${file##*/})"
  done
  { cgroup_pids && shim_pids && namespace_pids; } | sed 's/^/process /'
  our_mounts | sed 's/^/mount /'
  cgroup_dirs | sed 's/^/cgroup /'
  [[ ! -e /run/netns/$NETNS ]] || echo "network namespace $NETNS"
  ! ip link show "$HOST_LINK" >/dev/null 2>&1 || echo "interface $HOST_LINK"
  [[ ! -e $STATE/host-rules ]] || host_rules | comm -13 "$STATE/host-rules" - | sed 's/^/firewall rule /'
  sysctl_files | while read -r key; do
    sysctl_same "$key" || echo "sysctl ${key//\//.} (was $(cat "$STATE/sysctl/$key"))"
  done
}

own_down() {
  stop_processes
  unmount_all
  remove_cgroups
  remove_network
  remove_cilium_files
  restore_sysctls
  local left
  left=$(leftovers)
  if [[ -n $left ]]; then
    printf 'left behind:\n%s\n' "$left" >&2
    exit 1
  fi
}

main() {
  [[ -n ${DROVER_LOCKED:-} ]] || locked
  if [[ $(mode) == kind ]]; then
    kind_down
  elif [[ $(mode) == own || -z $(mode) ]] && [[ $(id -u) -eq 0 ]]; then
    own_down
  fi
  if [[ ${1:-} == --keep-logs && -d $LOGS ]]; then
    rm -rf "$DROVER_TEST_BED/last-logs"
    mv "$LOGS" "$DROVER_TEST_BED/last-logs"
  fi
  rm -rf "$STATE" 2>/dev/null || {
    chattr -R -i "$STATE" 2>/dev/null || true # the kubelet may have left immutable files
    rm -rf "$STATE"
  }
  [[ ! -e $STATE ]] || die "left behind: $STATE"
  say "down"
}

main "$@"
