#!/bin/bash
# Brings a Kubernetes cluster up for the e2e tests, with our images in it.
#
#   up.sh                   in order of preference: the cluster of DROVER_E2E_KUBECONFIG; kind, when Docker
#                           answers; a single node of our own from programs in the cache, built when missing
#   up.sh --reload-images   builds our two images again where their inputs changed, and loads them
#
# Promises: says so and ends with 0 when the cluster is up and healthy; takes a half-up one down first;
# ends by printing where the kubeconfig lies. Everything it makes, down.sh removes.
# DROVER_CLUSTER_CNI=cilium gives a node that enforces NetworkPolicy.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/lib.sh"
for part in process host pki runtime control-plane node dns kind cilium; do
  # shellcheck source=/dev/null
  . "$CLUSTER_DIR/parts/$part.sh"
done

COMPONENTS=(containerd etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy coredns)

preferred_mode() {
  if [[ -n ${DROVER_E2E_KUBECONFIG:-} ]]; then
    echo given
  elif [[ $DROVER_CLUSTER_CNI == bridge ]] && command -v kind >/dev/null && docker info >/dev/null 2>&1; then
    echo kind
  else
    echo own
  fi
}

# --- a cluster that was handed in ------------------------------------------------------------------

given_up() {
  mkdir -p "$STATE"
  cp "$DROVER_E2E_KUBECONFIG" "$WELL_KNOWN_KUBECONFIG"
  kubectl --kubeconfig "$WELL_KNOWN_KUBECONFIG" get --raw /readyz >/dev/null ||
    die "the cluster of DROVER_E2E_KUBECONFIG does not answer"
  say "using the cluster of DROVER_E2E_KUBECONFIG; our images must be reachable from it"
}

given_healthy() {
  cmp -s "${DROVER_E2E_KUBECONFIG:-}" "$WELL_KNOWN_KUBECONFIG" &&
    kubectl --kubeconfig "$WELL_KNOWN_KUBECONFIG" get --raw /readyz >/dev/null 2>&1
}

# --- a node of our own -----------------------------------------------------------------------------

own_up() {
  [[ $(id -u) -eq 0 && $(uname -s) == Linux ]] ||
    die "a node of our own needs root on Linux; otherwise start Docker and install kind, or set DROVER_E2E_KUBECONFIG"
  require runc=runc "$CNI_BIN/bridge=containernetworking-plugins" ip=iproute2 nft=nftables \
    iptables=iptables conntrack=conntrack openssl=openssl nsenter=util-linux jq=jq git=git
  "$CLUSTER_DIR/build.sh" cluster vault
  [[ $DROVER_CLUSTER_CNI != cilium ]] || cilium_prepare
  "$CLUSTER_DIR/images.sh"
  say "programs and images are there"
  make_state
  own_start
}

make_state() {
  mkdir -p "$PIDS" "$LOGS" "$STATE"/{bin,etcd,manifests,kubelet,containerd,cni/net.d,tmp}
  echo "$DROVER_CLUSTER_CNI" >"$STATE/cni/kind"
  remember_host
  "$CLUSTER_DIR/build.sh" --path cluster | xargs -I{} ln -s {} "$STATE/bin/"
  [[ $DROVER_CLUSTER_CNI != cilium ]] ||
    "$CLUSTER_DIR/build.sh" --path cilium | xargs -I{} ln -s {} "$STATE/bin/"
  export PATH="$STATE/bin:$PATH" # containerd finds its shim there
}

own_start() {
  make_pki
  make_network
  make_cgroups
  start_containerd
  start_etcd
  start_apiserver
  until_ok "containerd answers" 20 containerd_ctl version || must_live containerd
  load_images
  until_ok "API server ready" 60 kubectl get --raw /readyz || must_live etcd kube-apiserver
  start_controllers
  start_kubelet
  [[ $DROVER_CLUSTER_CNI != cilium ]] || start_cilium
  start_kube_proxy
  until_ok "kube-system exists" 30 kubectl get namespace kube-system
  start_dns
  until_ok "node Ready" 60 kubectl wait --for=condition=Ready "node/$NODE_NAME" --timeout=5s
  until_ok "DNS ready" 30 dns_ready
  until_ok "default service account" 30 kubectl get serviceaccount default
  must_live "${COMPONENTS[@]}"
  cp "$PKI/admin.kubeconfig" "$WELL_KNOWN_KUBECONFIG"
}

own_healthy() {
  local name
  [[ -s $WELL_KNOWN_KUBECONFIG && $(cat "$STATE/cni/kind") == "$DROVER_CLUSTER_CNI" ]] || return 1
  for name in "$PIDS"/*; do
    alive "${name##*/}" || {
      say "${name##*/} has ended"
      return 1
    }
  done
  kubectl get --raw /readyz --request-timeout=5s >/dev/null 2>&1 &&
    kubectl wait --for=condition=Ready "node/$NODE_NAME" --timeout=5s >/dev/null 2>&1 && dns_ready 2>/dev/null
}

kubectl() {
  if [[ -x $STATE/bin/kubectl ]]; then
    "$STATE/bin/kubectl" --kubeconfig "$PKI/admin.kubeconfig" --cache-dir "$STATE/tmp/kubectl" "$@"
  else
    command kubectl "$@"
  fi
}

# --- command line ----------------------------------------------------------------------------------

reload_images() {
  case $(mode) in
    own)
      "$CLUSTER_DIR/images.sh" ours
      load_images
      ;;
    kind) kind_load ;;
    given) say "a cluster that was handed in: push the images to its registry" ;;
    *) die "no cluster is up" ;;
  esac
}

finish() {
  echo "kubeconfig: $WELL_KNOWN_KUBECONFIG"
  echo "export KUBECONFIG=$WELL_KNOWN_KUBECONFIG"
  [[ ! -d $STATE/bin ]] || echo "export PATH=$STATE/bin:\$PATH"
}

main() {
  locked
  if [[ ${1:-} == --reload-images ]]; then
    reload_images
    return
  fi
  [[ $# -eq 0 ]] || die "usage: up.sh [--reload-images]"
  local wanted current
  wanted=$(preferred_mode)
  current=$(mode)
  if [[ $current == "$wanted" ]] && "${current}_healthy"; then
    say "already up ($current)"
    finish
    return
  fi
  if [[ -e $STATE ]]; then
    say "taking down what is half up"
    DROVER_LOCKED=1 "$CLUSTER_DIR/down.sh"
  fi
  mkdir -p "$STATE"
  echo "$wanted" >"$STATE/mode"
  "${wanted}_up"
  say "up ($wanted)"
  finish
}

main "$@"
