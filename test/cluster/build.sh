#!/bin/bash
# Builds the programs of the test bed from the pinned Go modules in modules/ and keeps them in the cache.
#
#   build.sh                builds what the cluster tier needs
#   build.sh api            etcd, kube-apiserver, kubectl: enough for controller tests
#   build.sh cilium         the four programs of Cilium
#   build.sh vault          a Vault server: tests only, never shipped
#   build.sh NAME…          just these
#   build.sh --path NAME…   prints where they lie (or would lie), builds nothing
#
# Promises: a program that is there is not built again; its folder is named by version and by a hash over
# everything that decides its content; it appears whole or not at all; two callers never build the same
# program at once. Prints one line per program.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/lib.sh"

API_TIER=(etcd kube-apiserver kubectl)
CLUSTER_TIER=("${API_TIER[@]}" kube-controller-manager kube-scheduler kubelet kube-proxy
  containerd containerd-shim-runc-v2 ctr helm coredns)
CILIUM=(cilium-agent cilium-operator cilium-cni cilium-dbg)

# recipe NAME: sets module, package, main_module (whose version is ours), tags.
recipe() {
  tags=
  case $1 in
    etcd) module=etcd main_module=go.etcd.io/etcd/server/v3 package=$main_module ;;
    kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubelet | kubectl)
      module=kubernetes main_module=k8s.io/kubernetes package=$main_module/cmd/$1 ;;
    containerd | containerd-shim-runc-v2 | ctr)
      module=containerd main_module=github.com/containerd/containerd/v2 package=$main_module/cmd/$1 ;;
    helm) module=helm main_module=helm.sh/helm/v4 package=$main_module/cmd/helm ;;
    vault) module=vault main_module=github.com/hashicorp/vault package=$main_module ;;
    coredns) module=coredns main_module=github.com/coredns/coredns package=. ;;
    cilium-agent) cilium_recipe daemon ;;
    cilium-operator) cilium_recipe operator ;;
    cilium-cni) cilium_recipe plugins/cilium-cni ;;
    cilium-dbg) cilium_recipe cilium-dbg ;;
    *) die "unknown program: $1" ;;
  esac
}

cilium_recipe() {
  module=cilium main_module=github.com/cilium/cilium package=$main_module/$1 tags=ipam_provider_operator
}

# The version of the main module, as its go.mod pins it.
pinned_version() {
  awk -v m="$main_module" '$1 == "require" && $2 == m { print $3 } $1 == m && $2 ~ /^v/ { print $2 }' \
    "$CLUSTER_DIR/modules/$module/go.mod" | head -1
}

# Without version flags the kubelet and its clients disagree about features.
linker_flags() {
  local version=$1 flags="-s -w"
  if [[ $module == kubernetes ]]; then
    local minor=${version#v1.} package=k8s.io/component-base/version
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
  elif [[ $module == cilium ]]; then
    flags+=" -X github.com/cilium/cilium/pkg/version.ciliumVersion=${version#v}"
  fi
  printf '%s' "$flags"
}

# path_of NAME: prints where the program belongs. Expects recipe to have run.
path_of() {
  local version hash
  version=$(pinned_version)
  [[ -n $version ]] || die "modules/$module/go.mod does not pin $main_module"
  hash=$({
    linker_flags "$version"
    printf '%s' "$tags $(uname -m)"
    cd "$CLUSTER_DIR/modules/$module" && find . -type f -print0 | hash_files
  } | sha256sum | cut -c1-10)
  printf '%s\n' "$BIN_DIR/$module-${version#v}-$hash/$1"
}

print_path() {
  recipe "$1"
  path_of "$1"
}

require_go() {
  command -v go >/dev/null || die "missing: go (1.26 or newer) to build $1"
}

build() {
  local name=$1 path started log
  recipe "$name"
  path=$(path_of "$name")
  if [[ -x $path ]]; then
    printf '%-24s cached\n' "$name"
    return
  fi
  require_go "$name"
  mkdir -p "$(dirname "$path")"
  exec 9>"$(dirname "$path")/.$name.lock"
  flock 9
  started=$SECONDS
  if [[ ! -x $path ]]; then
    log=$path.log
    if ! compile "$path.new" >"$log" 2>&1; then
      tail -20 "$log" >&2
      die "$name did not build; the whole log: $log"
    fi
    mv "$path.new" "$path"
    rm -rf "$log" "$path.new.source"
  fi
  exec 9>&-
  printf '%-24s %s %ss\n' "$name" "$(pinned_version)" $((SECONDS - started))
}

compile() {
  local flags source=$CLUSTER_DIR/modules/$module
  flags=$(linker_flags "$(pinned_version)")
  if [[ -e $source/prepare.sh ]]; then
    source=$(prepared "$source" "$1.source") || return
  fi
  cd "$source" || return
  # Read-only: what go.mod and go.sum do not pin must fail. DROVER_GO_MOD=mod is for changing a version.
  GOWORK=off CGO_ENABLED=0 nice -n 5 go build -buildvcs=false "-mod=${DROVER_GO_MOD:-readonly}" \
    -tags "$tags" -ldflags "$flags" -o "$1" "$package"
}

# prepared MODULE COPY: a copy of the module's folder in which its prepare.sh has run; prints its path.
prepared() {
  rm -rf "$2"
  cp -r "$1" "$2" && cd "$2" && bash ./prepare.sh >&2 && pwd
}

# expand NAME…: replaces the names of tiers by the programs in them.
expand() {
  local name
  for name in "$@"; do
    case $name in
      api) printf '%s\n' "${API_TIER[@]}" ;;
      cluster) printf '%s\n' "${CLUSTER_TIER[@]}" ;;
      cilium) printf '%s\n' "${CILIUM[@]}" ;;
      *) printf '%s\n' "$name" ;;
    esac
  done
}

main() {
  local name names action=build
  if [[ ${1:-} == --path ]]; then
    action=print_path
    shift
  fi
  [[ $# -gt 0 ]] || set -- cluster
  mapfile -t names < <(expand "$@")
  for name in "${names[@]}"; do ("$action" "$name"); done
}

main "$@"
