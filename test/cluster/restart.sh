#!/bin/bash
# usage: restart.sh NAME   Starts a component of our own node again, as it was started: for tests that
# killed it. NAME is one of kube-apiserver, etcd, kubelet, containerd.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/lib.sh"
for part in process host pki runtime control-plane node; do
  # shellcheck source=/dev/null
  . "$CLUSTER_DIR/parts/$part.sh"
done
export PATH="$STATE/bin:$PATH"

stop "$1"
case $1 in
  kube-apiserver) start_apiserver ;;
  etcd) start_etcd ;;
  kubelet) start_kubelet ;;
  containerd) start_containerd ;;
  *) die "usage: restart.sh kube-apiserver|etcd|kubelet|containerd" ;;
esac
