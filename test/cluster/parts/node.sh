# shellcheck shell=bash
# kubelet and kube-proxy. Sourced by up.sh.

start_kubelet() {
  echo 'nameserver 127.0.0.1' >"$STATE/resolv.conf"
  write_kubelet_config
  run kubelet "$STATE/bin/kubelet" --config="$STATE/kubelet.yaml" --kubeconfig="$PKI/node.kubeconfig" \
    --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" --root-dir="$STATE/kubelet" --cert-dir="$PKI/kubelet"
}

# maxPods: 200 sessions at once plus the system; POD_CIDR must have room for them.
# Nothing is ever evicted or collected because the machine's disk is nearly full.
write_kubelet_config() {
  cat >"$STATE/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/node.crt
tlsPrivateKeyFile: $PKI/node.key
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
clusterDNS: ["$DNS_IP"]
clusterDomain: cluster.local
resolvConf: $STATE/resolv.conf
containerRuntimeEndpoint: unix://$CONTAINERD_SOCK
staticPodPath: $STATE/manifests
volumePluginDir: $STATE/kubelet/volumeplugins
podLogsDir: $STATE/podlogs
syncFrequency: 10s
nodeStatusUpdateFrequency: 4s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%,
  nodefs.inodesFree: 1%, imagefs.inodesFree: 1%}
maxPods: 250
serializeImagePulls: false
registerNode: true
logging: {verbosity: 2}
EOF
}

# Conntrack limits are 0: they are not writable in a network namespace.
start_kube_proxy() {
  cat >"$STATE/kube-proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
mode: nftables
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE_NAME
bindAddress: $NODE_IP
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nodePortAddresses: ["$NODE_IP/32"]
EOF
  run kube-proxy "$STATE/bin/kube-proxy" --config="$STATE/kube-proxy.yaml"
}
