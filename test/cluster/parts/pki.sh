# shellcheck shell=bash
# Certificates and kubeconfigs of the node: one CA, one client certificate a component, the key that signs
# service-account tokens. Valid for 30 days, made anew by each start. Sourced by up.sh.

PKI=$STATE/pki

make_pki() {
  local service_ip=${SERVICE_CIDR%.*.*}.0.1 dns=DNS:localhost name
  for name in '' .default .default.svc .default.svc.cluster.local; do dns+=",DNS:kubernetes$name"; done
  mkdir "$PKI"
  chmod 700 "$PKI"
  new_key ca
  openssl req -x509 -new -key "$PKI/ca.key" -subj /CN=drover-test-bed -days 30 -out "$PKI/ca.crt" \
    -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature 2>/dev/null
  new_key sa
  openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver "$dns,IP:127.0.0.1,IP:$NODE_IP,IP:$service_ip"
  certificate admin /O=system:masters/CN=admin
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  certificate coredns /CN=drover-test-bed:coredns
  certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client
  certificate node "/O=system:nodes/CN=system:node:$NODE_NAME" "DNS:$NODE_NAME,IP:$NODE_IP"
  certificate front-proxy-client /CN=front-proxy-client
  for name in admin controller-manager scheduler kube-proxy node; do
    kubeconfig "$name" >"$PKI/$name.kubeconfig"
  done
  say "certificates"
}

new_key() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key"
}

# certificate NAME SUBJECT [ALTERNATIVE-NAMES]
certificate() {
  new_key "$1"
  {
    echo extendedKeyUsage=clientAuth,serverAuth
    echo keyUsage=digitalSignature
    echo basicConstraints=CA:FALSE
    [[ -z ${3:-} ]] || echo "subjectAltName=$3"
  } >"$PKI/$1.ext"
  openssl req -new -key "$PKI/$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 30 \
      -extfile "$PKI/$1.ext" -out "$PKI/$1.crt" 2>/dev/null
}

# kubeconfig NAME: prints one that holds its certificates, so that it can be copied anywhere.
kubeconfig() {
  cat <<EOF
apiVersion: v1
kind: Config
clusters:
- name: drover
  cluster:
    server: https://$NODE_IP:6443
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
- name: drover
  context: {cluster: drover, user: $1}
current-context: drover
EOF
}
