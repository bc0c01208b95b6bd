#!/bin/bash
# Builds the images of the test bed where no registry answers, and keeps them as OCI archives in the cache.
#
#   images.sh               everything below
#   images.sh base          pause, redis, vault, and the stand-in for node:24-bookworm-slim
#   images.sh ours          drover:VERSION and drover-sandbox:VERSION, from the repository's Dockerfiles, unchanged
#   images.sh --archives    prints the archives that were built last, builds nothing
#
# Promises: an archive is named by a hash over its inputs and built only when it is missing; it appears
# whole or not at all; two callers never build at once. Inside our Dockerfiles npm and apt use the network
# and the client configuration of this machine; none of that configuration stays in an image.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/lib.sh"

BASE=(pause redis vault node)
OURS=(drover drover-sandbox)

WORK=
# A build that failed leaves its container mounted; the storage is ours alone, so all of them can go.
# Layers are kept, so that `npm ci` does not run again for every change; not for ever: archives hold what matters.
cleanup() {
  [[ -n $WORK ]] || return 0
  rm -rf "$WORK"
  [[ -n ${CONTAINERS_STORAGE_CONF:-} ]] || return 0
  buildah rm --all >/dev/null 2>&1 || true
  [[ $(buildah images -aq 2>/dev/null | wc -l) -le 60 ]] || buildah rmi --all --force >/dev/null 2>&1 || true
  umount "$DROVER_TEST_BED/buildah/graph/overlay" 2>/dev/null || true
}
trap cleanup EXIT

image_name() {
  case $1 in
    pause) echo "$PAUSE_IMAGE" ;;
    redis) echo "$REDIS_IMAGE" ;;
    vault) echo "$VAULT_IMAGE" ;;
    node) echo "$NODE_IMAGE" ;;
    drover) echo "$DROVER_IMAGE" ;;
    drover-sandbox) echo "$SANDBOX_IMAGE" ;;
  esac
}

dockerfile() {
  case $1 in
    drover) echo "$REPO_DIR/Dockerfile" ;;
    drover-sandbox) echo "$REPO_DIR/Dockerfile.sandbox" ;;
    *) echo "$CLUSTER_DIR/images/$1/Dockerfile" ;;
  esac
}

# archive NAME: the archive that was built last. A link: sources may change while images are built.
archive() {
  readlink -f "$IMAGE_DIR/$1.tar" || true
}

# image_key NAME: a hash over everything that decides the image's content, its name included.
image_key() {
  {
    image_name "$1"
    case $1 in
      pause | redis | node) (cd "$CLUSTER_DIR/images/$1" && find . -type f -print0 | hash_files) ;;
      vault)
        "$CLUSTER_DIR/build.sh" --path vault
        cat "$(dockerfile vault)"
        ;;
      *) image_key node && our_inputs "$1" ;;
    esac
  } | sha256sum | cut -c1-12
}

# our_inputs NAME: hashes the Dockerfile, .dockerignore and what the Dockerfile copies from the repository.
our_inputs() (
  cd "$REPO_DIR"
  mapfile -t sources < <(awk 'toupper($1) ~ /^(COPY|ADD)$/ && !/--from=/ {
    for (i = 2; i < NF; i++) if ($i !~ /^--/) print $i }' "$(dockerfile "$1")")
  {
    printf '%s\0' "$(basename "$(dockerfile "$1")")"
    [[ ! -e .dockerignore ]] || printf '.dockerignore\0'
    repo_files "${sources[@]}"
  } | hash_files
)

# repo_files [PATHSPEC…]: the files of the work tree that git does not ignore, NUL separated, tests left out.
repo_files() {
  local specs=("$@")
  [[ ${#specs[@]} -gt 0 ]] || specs=(.)
  git ls-files -z -co --exclude-standard -- "${specs[@]}" ':!test' ':!*.test.ts' |
    while IFS= read -r -d '' file; do [[ ! -f $file ]] || printf '%s\0' "$file"; done
}

prepare_buildah() {
  require mmdebstrap=mmdebstrap buildah=buildah git=git
  export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=overlay
  # Storage of our own: one `rm` takes it away.
  export CONTAINERS_STORAGE_CONF=$DROVER_TEST_BED/buildah/storage.conf
  mkdir -p "$DROVER_TEST_BED/buildah" "$IMAGE_DIR"
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' \
    "$DROVER_TEST_BED/buildah/graph" "$DROVER_TEST_BED/buildah/run" >"$CONTAINERS_STORAGE_CONF"
}

# save NAME FILE: writes the built image to its archive and drops the archives of earlier inputs.
save() {
  local name=$1 file=$2 image
  image=$(image_name "$name")
  rm -f "$IMAGE_DIR/$name"-????????????.tar{,.new}
  buildah push -q "$image" "oci-archive:$file.new:$image" >/dev/null
  mv "$file.new" "$file"
}

# --- base images ---------------------------------------------------------------------------------

build_base() {
  local name=$1 context=$WORK/$1
  mkdir -p "$context"
  cp "$CLUSTER_DIR/images/$name/"* "$context/"
  "context_$name" "$context"
  buildah bud -q --format oci -t "$(image_name "$name")" "$context" >/dev/null
  rm -rf "$context"
}

context_pause() {
  require gcc=gcc /usr/include/stdlib.h=libc6-dev
  gcc -static -Os -s -o "$1/pause" "$1/pause.c"
}

context_redis() {
  local PACKAGES
  # shellcheck source=/dev/null
  . "$1/recipe"
  # Extracted, not installed: no maintainer script runs, nothing essential comes along.
  debian_rootfs "$1/rootfs" --variant=extract --include="$PACKAGES"
  (
    cd "$1"
    mkdir slim
    local program library
    for program in redis-check-rdb redis-cli; do install -D -t slim/usr/bin "rootfs/usr/bin/$program"; done
    ln -s redis-check-rdb slim/usr/bin/redis-server # one program under two names
    chroot_libraries rootfs /usr/bin/redis-check-rdb /usr/bin/redis-cli | while read -r library; do
      install -D "$(readlink -f "rootfs$library")" "slim$library"
    done
    install -d -m 1777 slim/tmp slim/data
    mkdir slim/etc
    echo 'redis:x:999:999::/data:/usr/bin/redis-cli' >slim/etc/passwd
    tar -C slim -cf rootfs.tar .
    rm -rf rootfs slim
  )
}

context_vault() {
  cp "$("$CLUSTER_DIR/build.sh" --path vault)" "$1/vault"
}

# chroot_libraries ROOT PROGRAM…: the libraries the programs load inside ROOT, loader included.
chroot_libraries() {
  local root=$1 loader
  shift
  loader=$(cd "$root" && find lib* usr/lib* -name 'ld-linux*.so.*' | head -1)
  { echo "/$loader" && chroot "$root" "/$loader" --list "$1" && chroot "$root" "/$loader" --list "$2"; } |
    grep -oE '/[^ ]+\.so[^ ]*' | sort -u
}

context_node() {
  require npm=npm
  local NODE_VERSION NPM_VERSION PACKAGES platform
  # shellcheck source=/dev/null
  . "$1/recipe"
  debian_rootfs "$1/rootfs.tar" --variant=apt --include="$PACKAGES"
  case $(uname -m) in aarch64) platform=linux-arm64 ;; *) platform=linux-x64 ;; esac
  (
    cd "$1"
    npm pack -s "node-$platform@$NODE_VERSION" "npm@$NPM_VERSION" >/dev/null
    mkdir -p local/bin local/lib/node_modules
    tar xzf "node-$platform-$NODE_VERSION.tgz" package/bin/node
    mv package/bin/node local/bin/node
    rm -rf package
    tar xzf "npm-$NPM_VERSION.tgz"
    mv package local/lib/node_modules/npm
    ln -s ../lib/node_modules/npm/bin/npm-cli.js local/bin/npm
    ln -s ../lib/node_modules/npm/bin/npx-cli.js local/bin/npx
    rm -f ./*.tgz
  )
}

# debian_rootfs TARGET OPTION…: Debian 12 by mmdebstrap, from the mirror this machine uses when it is one.
debian_rootfs() {
  local target=$1 mirror
  shift
  # shellcheck disable=SC2016 # apt's own placeholders
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 2>/dev/null |
    awk '$2 == "bookworm" { print $1; exit }') || true
  if ! mmdebstrap -q "$@" bookworm "$target" ${mirror:+"$mirror"} 2>"$WORK/mmdebstrap.log"; then
    tail -10 "$WORK/mmdebstrap.log" >&2
    return 1
  fi
}

# --- our images ----------------------------------------------------------------------------------

build_ours() {
  local name=$1
  ensure_node_base
  client_configuration
  if [[ ! -d $WORK/context ]]; then
    mkdir "$WORK/context"
    (cd "$REPO_DIR" && repo_files | tar --null -T - -cf -) | tar -xf - -C "$WORK/context"
  fi
  buildah bud --format oci --pull=never --layers "${CLIENT_OPTIONS[@]}" \
    -f "$(dockerfile "$name")" -t "$(image_name "$name")" "$WORK/context" >"$WORK/$name.log" 2>&1 || {
    tail -40 "$WORK/$name.log" >&2
    die "$name did not build from $(basename "$(dockerfile "$name")")"
  }
}

# The archive is in the cache, but buildah's storage may have been removed or hold an older one.
ensure_node_base() {
  local marker
  marker=drover.test/node-base:$(image_key node)
  if ! buildah inspect --type image "$marker" >/dev/null 2>&1; then
    local id
    id=$(buildah pull -q "oci-archive:$(archive node)")
    buildah tag "$id" "$marker" "$NODE_IMAGE"
  fi
}

# client_configuration: sets CLIENT_OPTIONS so that npm and apt inside a build behave as on this machine.
client_configuration() {
  local dir=$WORK/client
  CLIENT_OPTIONS=()
  mkdir -p "$dir"
  local bundle=${NODE_EXTRA_CA_CERTS:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
  cp "$bundle" "$dir/ca.crt"
  (
    cd / # no project configuration
    cat "$(npm config get globalconfig)" "$(npm config get userconfig)" 2>/dev/null |
      grep -vE '^ *(cafile|prefix|nodedir|cache) *=' || true
    echo "registry=$(npm config get registry)"
    echo cafile=/run/drover-build/ca.crt
  ) >"$dir/npmrc"
  {
    apt-config dump Acquire 2>/dev/null || true
    echo 'Acquire::https::CAInfo "/run/drover-build/ca.crt";'
  } >"$dir/apt.conf"
  CLIENT_OPTIONS+=(--volume "$dir:/run/drover-build:ro")
  CLIENT_OPTIONS+=(--volume "$dir/npmrc:/usr/local/etc/npmrc:ro")
  CLIENT_OPTIONS+=(--volume "$dir/apt.conf:/etc/apt/apt.conf.d/99host:ro")
}

# --- command line --------------------------------------------------------------------------------

ensure() {
  local name=$1 kind=$2 file started=$SECONDS
  if [[ ! -e $(dockerfile "$name") ]]; then
    printf '%-16s skipped: no %s\n' "$name" "$(basename "$(dockerfile "$name")")"
    return
  fi
  file=$IMAGE_DIR/$name-$(image_key "$name").tar
  if [[ -s $file ]]; then
    ln -sfn "${file##*/}" "$IMAGE_DIR/$name.tar"
    printf '%-16s cached\n' "$name"
    return
  fi
  prepare_buildah
  [[ -n $WORK ]] || WORK=$(mktemp -d)
  "build_$kind" "$name"
  save "$name" "$file"
  ln -sfn "${file##*/}" "$IMAGE_DIR/$name.tar"
  printf '%-16s %s %ss %s\n' "$name" "$(image_name "$name")" $((SECONDS - started)) "$(du -h "$file" | cut -f1)"
}

print_archives() {
  local name
  for name in "${BASE[@]}" "${OURS[@]}"; do
    [[ ! -e $(dockerfile "$name") ]] || archive "$name"
  done
}

main() {
  local what=${1:-all} name
  [[ $what != --archives ]] || {
    print_archives
    return
  }
  [[ $what =~ ^(all|base|ours)$ ]] || die "usage: images.sh [all|base|ours|--archives]"
  [[ $(id -u) -eq 0 ]] || die "images.sh needs root (mmdebstrap and buildah make file systems)"
  mkdir -p "$IMAGE_DIR"
  exec 8>"$IMAGE_DIR/.lock"
  flock 8
  [[ $what == ours ]] || for name in "${BASE[@]}"; do ensure "$name" base; done
  [[ $what == base ]] || {
    ensure node base
    for name in "${OURS[@]}"; do ensure "$name" ours; done
  }
}

main "$@"
