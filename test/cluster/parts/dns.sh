# shellcheck shell=bash
# CoreDNS: a process beside the kubelet, reached through a Service without selector. It knows cluster
# names only; every other name is refused at once. Sourced by up.sh.

start_dns() {
  write_corefile
  dns_objects | kubectl apply -f - >"$LOGS/dns-apply.log"
  run coredns "$STATE/bin/coredns" -conf "$STATE/Corefile"
}

dns_ready() (
  exec 3<>"/dev/tcp/$NODE_IP/8181" || exit 1
  printf 'GET /ready HTTP/1.0\r\n\r\n' >&3
  grep -q '200 OK' <&3
)

write_corefile() {
  cat >"$STATE/Corefile" <<EOF
.:53 {
  bind $NODE_IP 127.0.0.1
  errors
  health $NODE_IP:8081
  ready $NODE_IP:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    endpoint https://$NODE_IP:6443
    tls $PKI/coredns.crt $PKI/coredns.key $PKI/ca.crt
    ttl 5
  }
  cache 5
}
EOF
}

dns_objects() {
  cat <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "drover-test-bed:coredns"}
rules:
- {apiGroups: [""], resources: [services, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "drover-test-bed:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "drover-test-bed:coredns"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "drover-test-bed:coredns"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "drover-test-bed:kube-proxy"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-proxier"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:kube-proxy"}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: $DNS_IP
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-host, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: ["$NODE_IP"], conditions: {ready: true}}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
EOF
}
