# shellcheck shell=bash
# etcd, API server, controller manager, scheduler. Full RBAC, Node authorizer, NodeRestriction;
# PodSecurity and ValidatingAdmissionPolicy are on by default. Sourced by up.sh.

start_etcd() {
  run etcd "$STATE/bin/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
}

# It waits for etcd by itself.
start_apiserver() {
  local headers=X-Remote
  run kube-apiserver "$STATE/bin/kube-apiserver" \
    --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$NODE_IP" --bind-address=0.0.0.0 --secure-port=6443 \
    --service-cluster-ip-range="$SERVICE_CIDR" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --client-ca-file="$PKI/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --kubelet-client-certificate="$PKI/kubelet-client.crt" \
    --kubelet-client-key="$PKI/kubelet-client.key" --kubelet-certificate-authority="$PKI/ca.crt" \
    --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=$headers-User --requestheader-group-headers=$headers-Group \
    --requestheader-extra-headers-prefix=$headers-Extra- \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" \
    --proxy-client-key-file="$PKI/front-proxy-client.key" \
    --allow-privileged=true --profiling=false --v=1
}

start_controllers() {
  local config=$PKI/controller-manager.kubeconfig
  run kube-controller-manager "$STATE/bin/kube-controller-manager" \
    --kubeconfig="$config" --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" \
    --use-service-account-credentials --service-account-private-key-file="$PKI/sa.key" \
    --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --allocate-node-cidrs --node-cidr-mask-size="${POD_CIDR#*/}" --cluster-cidr="$CLUSTER_CIDR" \
    --flex-volume-plugin-dir="$STATE/kubelet/volumeplugins" --node-monitor-grace-period=20s \
    --kube-api-qps=100 --kube-api-burst=200 --bind-address=127.0.0.1 --leader-elect=false --v=1
  config=$PKI/scheduler.kubeconfig
  run kube-scheduler "$STATE/bin/kube-scheduler" \
    --kubeconfig="$config" --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" \
    --bind-address=127.0.0.1 --leader-elect=false --v=1
}
