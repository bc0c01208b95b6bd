# shellcheck shell=bash
# Cilium instead of the bridge plugin: NetworkPolicy is enforced. Only when DROVER_CLUSTER_CNI=cilium.
# The operator makes the CRDs and cleans up; the agent compiles BPF programs with clang 19 and loads them.
# No kube-proxy replacement, no L7 proxy, no Hubble, no health checking. Sourced by up.sh.

CILIUM=$STATE/cilium
CILIUM_MODULE=github.com/cilium/cilium
LLVM=/usr/lib/llvm-19/bin

cilium_prepare() {
  require "$LLVM/clang=clang-19" "$LLVM/llc=llvm-19"
  "$CLUSTER_DIR/build.sh" cilium
}

cilium_source() {
  cd "$CLUSTER_DIR/modules/cilium" && GOWORK=off go list -mod=readonly -m -f '{{.Dir}}' $CILIUM_MODULE
}

start_cilium() {
  mkdir -p "$CILIUM"/{lib,run,llvm,bpf}
  cp -r "$(cilium_source)/bpf" "$CILIUM/lib/bpf"
  chmod -R u+w "$CILIUM/lib"
  ln -s "$LLVM/clang" "$LLVM/llc" "$CILIUM/llvm/"
  mount -t bpf bpf "$CILIUM/bpf"
  [[ -e /run/cilium ]] || touch "$STATE/made-run-cilium" # the CNI plugin writes there, whatever we say
  start_cilium_operator
  start_cilium_agent
  until_ok "Cilium's agent is ready" 120 env CILIUM_SOCK="$CILIUM/run/cilium.sock" \
    "$STATE/bin/cilium-dbg" status --brief || must_live cilium-operator cilium-agent
  # Written in place, and only now: containerd does not notice the agent's atomic rename.
  printf '{"cniVersion": "1.0.0", "name": "cilium", "plugins": [{"type": "cilium-cni", "log-file": "%s"}]}\n' \
    "$CILIUM/cni.log" >"$STATE/cni/net.d/05-cilium.conflist"
}

start_cilium_operator() {
  run cilium-operator env CILIUM_K8S_NAMESPACE=kube-system K8S_NODE_NAME="$NODE_NAME" \
    "$STATE/bin/cilium-operator" --k8s-kubeconfig-path="$PKI/admin.kubeconfig" \
    --ipam=kubernetes --identity-allocation-mode=crd \
    --operator-api-serve-addr=127.0.0.1:9234 --operator-prometheus-serve-addr= \
    --unmanaged-pod-watcher-interval=0 --set-cilium-node-taints=false
}

# The agent sets kernel.unprivileged_bpf_disabled to 1, which only a reboot undoes: in a mount namespace of
# its own it writes to a file instead.
start_cilium_agent() {
  local sysctl=/proc/sys/kernel/unprivileged_bpf_disabled
  cat $sysctl >"$CILIUM/unprivileged_bpf_disabled"
  # shellcheck disable=SC2016 # expanded by that shell
  run cilium-agent env PATH="$CILIUM/llvm:$PATH" CILIUM_K8S_NAMESPACE=kube-system K8S_NODE_NAME="$NODE_NAME" \
    unshare --mount --propagation slave sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh \
    "$CILIUM/unprivileged_bpf_disabled" $sysctl \
    "$STATE/bin/cilium-agent" --k8s-kubeconfig-path="$PKI/admin.kubeconfig" \
    --cluster-name=default --cluster-id=0 --ipam=kubernetes --identity-allocation-mode=crd \
    --enable-ipv4=true --enable-ipv6=false --routing-mode=native \
    --ipv4-native-routing-cidr="$CLUSTER_CIDR" --enable-ipv4-masquerade=false \
    --install-iptables-rules=true --kube-proxy-replacement=false --bpf-lb-sock=false \
    --devices="$NODE_LINK" --enable-l7-proxy=false --enable-hubble=false \
    --enable-health-checking=false --enable-endpoint-health-checking=false --gops-port=0 \
    --bpf-root="$CILIUM/bpf" --cgroup-root="$CILIUM/cgroup2" --lib-dir="$CILIUM/lib" \
    --state-dir="$CILIUM/run" --socket-path="$CILIUM/run/cilium.sock" \
    --cni-log-file="$CILIUM/cni.log" --cni-exclusive=false --enable-policy=default
}
