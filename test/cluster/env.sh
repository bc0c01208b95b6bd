# shellcheck shell=bash disable=SC2034
# Settings that every script here shares. Sourced, never run; it changes nothing and starts nothing.
# All that the test bed keeps lies under one folder, DROVER_TEST_BED: remove it and nothing is left.

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO_DIR=$(cd "$CLUSTER_DIR/../.." && pwd)

: "${DROVER_TEST_BED:=${XDG_CACHE_HOME:-$HOME/.cache}/drover/test-bed}"
BIN_DIR=$DROVER_TEST_BED/bin       # built programs: <module>-<version>-<hash>/<program>
IMAGE_DIR=$DROVER_TEST_BED/images  # OCI archives: <image>-<hash>.tar
STATE=$DROVER_TEST_BED/state       # what up.sh makes and down.sh removes
WELL_KNOWN_KUBECONFIG=$STATE/kubeconfig

# Image names. The pause image is ours: no registry has it.
PAUSE_IMAGE=drover.test/pause:1
REDIS_IMAGE=${DROVER_REDIS_IMAGE:-drover.test/redis:7}
VAULT_IMAGE=${DROVER_VAULT_IMAGE:-drover.test/vault:1}
NODE_IMAGE=docker.io/library/node:24-bookworm-slim
# Tagged as the manifests in deploy/examples name them: with the version of package.json.
VERSION=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$REPO_DIR/package.json")
DROVER_IMAGE=docker.io/library/drover:$VERSION
SANDBOX_IMAGE=docker.io/library/drover-sandbox:$VERSION

# The node. Everything runs in one network namespace behind one veth pair.
: "${DROVER_CLUSTER_CNI:=bridge}"  # bridge: no NetworkPolicy | cilium: NetworkPolicy enforced
: "${DROVER_CLUSTER_POD_CIDR:=10.244.0.0/23}"
: "${DROVER_CLUSTER_SERVICE_CIDR:=10.96.0.0/16}"
: "${DROVER_CLUSTER_LINK:=10.231.0}" # first three bytes of the veth's /30: .1 is the host, .2 the node
POD_CIDR=$DROVER_CLUSTER_POD_CIDR
CLUSTER_CIDR=${POD_CIDR%.*.*}.0.0/16
SERVICE_CIDR=$DROVER_CLUSTER_SERVICE_CIDR
DNS_IP=${SERVICE_CIDR%.*.*}.0.10
HOST_IP=$DROVER_CLUSTER_LINK.1
NODE_IP=$DROVER_CLUSTER_LINK.2
NETNS=drover
HOST_LINK=drover-h0
NODE_LINK=drover-n0
CGROUP=drover
NODE_NAME=drover-node
CNI_BIN=${DROVER_CNI_BIN:-/usr/lib/cni}
KIND_CLUSTER=drover
CONTAINERD_SOCK=$STATE/containerd/containerd.sock
