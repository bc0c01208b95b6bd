# shellcheck shell=bash
# What the node needs from the host: a network namespace, a veth pair, cgroups, and the memory of the
# global sysctls that the node's programs change. down.sh takes all of it away. Sourced by up.sh
# and down.sh.

# The kubelet and Cilium write these; they are not per namespace.
GLOBAL_SYSCTLS=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes kernel/timer_migration
  kernel/unprivileged_bpf_disabled net/core/bpf_jit_enable)

# host_rules: names the rules of a Kubernetes node in the host's own namespace; ours must never be there.
host_rules() {
  nft list ruleset 2>/dev/null |
    grep -oE 'table ip6? (kube-proxy|cni_hostport)|chain (KUBE-|CNI-|CILIUM_)[A-Za-z0-9_-]*' | sort -u || true
}

remember_host() {
  local key
  host_rules >"$STATE/host-rules"
  for key in "${GLOBAL_SYSCTLS[@]}"; do
    [[ -r /proc/sys/$key ]] || continue
    mkdir -p "$STATE/sysctl/$(dirname "$key")"
    cat "/proc/sys/$key" >"$STATE/sysctl/$key"
  done
}

# Deleting the namespace removes bridge, veths, firewall rules and conntrack entries in one go.
make_network() {
  [[ -d /run/netns ]] || touch "$STATE/made-run-netns"
  ip netns add "$NETNS"
  ip link add "$HOST_LINK" type veth peer name "$NODE_LINK" netns "$NETNS"
  ip addr add "$HOST_IP/30" dev "$HOST_LINK"
  ip link set "$HOST_LINK" up
  in_node ip link set lo up
  in_node ip addr add "$NODE_IP/30" dev "$NODE_LINK"
  in_node ip link set "$NODE_LINK" up
  in_node ip route add default via "$HOST_IP" # the kubelet insists on one; nothing forwards it
  ip route add "$CLUSTER_CIDR" via "$NODE_IP" # the host reaches pods and services directly
  ip route add "$SERVICE_CIDR" via "$NODE_IP"
  local key
  for key in ipv4/ip_forward bridge/bridge-nf-call-iptables ipv4/conf/all/route_localnet; do
    in_node sh -c "echo 1 >/proc/sys/net/$key" 2>/dev/null || true
  done
}

# All pods live below one cgroup of ours, in every hierarchy.
make_cgroups() {
  local root=/sys/fs/cgroup hierarchy controller
  if [[ -e $root/cgroup.controllers ]]; then # version 2 only
    tr ' ' '\n' <"$root/cgroup.controllers" | while read -r controller; do
      echo "+$controller" >"$root/cgroup.subtree_control" 2>/dev/null || true
    done
    mkdir -p "$root/$CGROUP"
    return
  fi
  for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids hugetlb systemd; do
    [[ ! -d $root/$hierarchy ]] || mkdir -p "$root/$hierarchy/$CGROUP"
  done
  # A version 1 cpuset is unusable until it has cpus and mems.
  for controller in cpuset.cpus cpuset.mems; do
    cat "$root/cpuset/$controller" >"$root/cpuset/$CGROUP/$controller"
  done
}
