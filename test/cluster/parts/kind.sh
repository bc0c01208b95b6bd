# shellcheck shell=bash
# The cluster as kind in Docker, on machines that have both and a registry that answers. Sourced by up.sh
# and down.sh.

kind_up() {
  kind delete cluster --name "$KIND_CLUSTER" >/dev/null 2>&1 || true
  kind create cluster --name "$KIND_CLUSTER" --kubeconfig "$WELL_KNOWN_KUBECONFIG" --wait 120s
  docker pull -q docker.io/library/redis:7-bookworm
  docker tag docker.io/library/redis:7-bookworm "$REDIS_IMAGE"
  docker pull -q docker.io/hashicorp/vault:1.14
  docker tag docker.io/hashicorp/vault:1.14 "$VAULT_IMAGE"
  kind load docker-image --name "$KIND_CLUSTER" "$REDIS_IMAGE" "$VAULT_IMAGE"
  kind_load
}

kind_load() {
  local name file
  for name in drover drover-sandbox; do
    file=$REPO_DIR/Dockerfile
    [[ $name == drover ]] || file=$REPO_DIR/Dockerfile.sandbox
    [[ -e $file ]] || continue
    docker build -q -t "$name:$VERSION" -f "$file" "$REPO_DIR"
    kind load docker-image --name "$KIND_CLUSTER" "$name:$VERSION"
  done
}

kind_healthy() {
  kind get clusters 2>/dev/null | grep -qx "$KIND_CLUSTER" &&
    command kubectl --kubeconfig "$WELL_KNOWN_KUBECONFIG" get --raw /readyz --request-timeout=5s >/dev/null 2>&1
}

kind_down() {
  kind delete cluster --name "$KIND_CLUSTER"
}
