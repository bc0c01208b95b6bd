# shellcheck shell=bash
# containerd and the images in it. Sourced by up.sh.

start_containerd() {
  [[ $DROVER_CLUSTER_CNI != bridge ]] || write_bridge_cni
  write_containerd_config
  run containerd env CILIUM_SOCK="$STATE/cilium/run/cilium.sock" \
    "$STATE/bin/containerd" --config "$STATE/containerd/config.toml"
}

write_bridge_cni() {
  cat >"$STATE/cni/net.d/10-drover.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "drover", "plugins": [
  {"type": "bridge", "bridge": "drover-br0", "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
   "hairpinMode": true, "promiscMode": false,
   "ipam": {"type": "host-local", "dataDir": "$STATE/cni/ipam", "ranges": [[{"subnet": "$POD_CIDR"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
EOF
}

write_containerd_config() {
  local plugins="\"$CNI_BIN\"" snapshotters=io.containerd.snapshotter.v1
  [[ $DROVER_CLUSTER_CNI != cilium ]] || plugins+=", \"$STATE/bin\""
  cat >"$STATE/containerd/config.toml" <<EOF
version = 3
root = "$STATE/containerd/root"
state = "$STATE/containerd/state"
imports = []
disabled_plugins = ["$snapshotters.devmapper", "$snapshotters.btrfs", "$snapshotters.zfs",
  "$snapshotters.blockfile", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "$CONTAINERD_SOCK"
[ttrpc]
  address = "$CONTAINERD_SOCK.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$PAUSE_IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  enable_selinux = false
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [$plugins]
  conf_dir = "$STATE/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "$(command -v runc)"
  SystemdCgroup = false
  Root = "$STATE/containerd/runc"
EOF
}

containerd_ctl() {
  "$STATE/bin/ctr" --address "$CONTAINERD_SOCK" --namespace k8s.io "$@"
}

# load_images: imports the archives of the present recipes that this containerd does not hold yet.
load_images() {
  local file count=0
  mkdir -p "$STATE/loaded"
  while read -r file; do
    [[ -s $file && ! -e $STATE/loaded/${file##*/} ]] || continue
    containerd_ctl images import --local "$file" >>"$LOGS/import.log" 2>&1 ||
      die "could not import $file: $(tail -2 "$LOGS/import.log")"
    touch "$STATE/loaded/${file##*/}"
    count=$((count + 1))
  done < <("$CLUSTER_DIR/images.sh" --archives)
  containerd_ctl images label "$PAUSE_IMAGE" io.cri-containerd.pinned=pinned >>"$LOGS/import.log" 2>&1
  say "$count images imported"
}
