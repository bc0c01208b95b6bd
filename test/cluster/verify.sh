#!/bin/bash
# Walks through what the cluster that is up must be able to do; one line a check, 1 when one fails.
# Cleans up after itself. Uses KUBECONFIG when set, otherwise what up.sh wrote.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/lib.sh"
export KUBECONFIG=${KUBECONFIG:-$WELL_KNOWN_KUBECONFIG}
export PATH=$STATE/bin:$PATH
[[ -s $KUBECONFIG ]] || die "no cluster is up"

NS=drover-verify
WORK=$(mktemp -d)
passed=0 failed=0

remove_objects() {
  kubectl delete namespace $NS $NS-restricted --ignore-not-found --timeout=90s >/dev/null
  kubectl delete validatingadmissionpolicy,validatingadmissionpolicybinding $NS --ignore-not-found >/dev/null
}

cleanup() {
  remove_objects || true
  rm -rf "$WORK"
}
trap cleanup EXIT

# check WHAT PATTERN COMMAND…: passes when the command's output (both streams) matches the pattern.
check() {
  local what=$1 pattern=$2 output
  shift 2
  output=$("$@" 2>&1) || true
  if grep -qE "$pattern" <<<"$output"; then
    echo "PASS $what"
    passed=$((passed + 1))
  else
    echo "FAIL $what: $(tail -2 <<<"$output" | cut -c1-200)"
    failed=$((failed + 1))
  fi
}

k() { kubectl -n $NS "$@"; }

# in_web SCRIPT: runs JavaScript in a pod of the Deployment.
in_web() { k exec deploy/web -- node -e "$1"; }

# Ready does not mean that it has already asked.
sidecar_answer() {
  local _
  for _ in {1..50}; do
    k logs side -c main | grep sidecar && return
    sleep 0.1
  done
}

pod_token() { k exec side -c main -- cat /var/run/token/token; }

token_review() {
  jq -n --arg token "$(pod_token)" '{apiVersion: "authentication.k8s.io/v1", kind: "TokenReview",
    spec: {token: $token, audiences: ["vault"]}}' | kubectl create -f - -o json |
    jq -r '"\(.status.authenticated) \(.status.user.username)"'
}

pod_with_secret() {
  k run bad --image="$NODE_IMAGE" --overrides='{"spec":{"volumes":[{"name":"s","secret":{"secretName":"x"}}]}}'
}

good_pod() {
  kubectl -n $NS-restricted apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: good}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: c
    image: $NODE_IMAGE
    command: [sleep, "3600"]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
EOF
}

restarted() {
  local _
  k exec side -c main -- touch /tmp/end
  for _ in {1..150}; do
    k get pod side -o jsonpath='{.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].ready}' |
      grep -q '[1-9]true' && echo yes && return
    sleep 0.2
  done
}

out_of_memory() {
  local reason _
  k run oom --image="$NODE_IMAGE" --restart=Never --overrides='{"spec":{"containers":[{"name":"oom",
    "image":"'"$NODE_IMAGE"'","command":["node","-e","a=[];for(;;)a.push(Buffer.alloc(1e7,1))"],
    "resources":{"limits":{"memory":"100Mi"}}}]}}' >/dev/null
  for _ in {1..150}; do
    reason=$(k get pod oom -o jsonpath='{.status.containerStatuses[0].state.terminated.reason}')
    [[ -z $reason ]] || { echo "$reason" && return; }
    sleep 0.2
  done
}

forward() {
  local pid _
  kubectl -n $NS port-forward deploy/web :8080 >"$WORK/forward" & # not `k`: its pid would be a shell's
  pid=$!
  for _ in {1..50}; do
    grep -q Forwarding "$WORK/forward" && break
    sleep 0.1
  done
  curl -s -m 5 "http://$(grep -oE '127.0.0.1:[0-9]+' "$WORK/forward" | head -1)"
  kill $pid
}

helm_release() {
  mkdir -p "$WORK/chart/templates"
  printf 'apiVersion: v2\nname: tiny\nversion: 0.1.0\n' >"$WORK/chart/Chart.yaml"
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n' >"$WORK/chart/templates/c.yaml"
  helm install tiny "$WORK/chart" -n $NS --wait && helm uninstall tiny -n $NS
}

node_metrics() {
  kubectl get --raw "/api/v1/nodes/$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')/proxy/metrics"
}

allow_web_from_web() {
  k apply -f - <<EOF
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]
EOF
}

# from_side: asks the web Service from the pod that no policy allows; prints the answer or why there is none.
from_side() {
  k exec side -c main -- node -e 'fetch("http://web", { signal: AbortSignal.timeout(3000) })
    .then(r => r.text(), e => e.name).then(console.log)'
}

# The policy is enforced a moment after it is accepted.
denied_from_side() {
  local _
  for _ in 1 2 3 4 5; do from_side | grep TimeoutError && return; done
}

web_stays_ready() {
  sleep 5 # five periods of the readiness probe
  k get deploy web -o jsonpath='ready {.status.readyReplicas}'
}

check_network_policy() {
  check "without a policy any pod is answered" "hello from web-" from_side
  allow_web_from_web >/dev/null
  check "a NetworkPolicy keeps a stranger out" TimeoutError denied_from_side
  check "and lets a friend in" "hello from web-" \
    in_web 'fetch("http://web").then(r => r.text()).then(console.log)'
  check "and the kubelet's probes" "ready 2" web_stays_ready
}

prepare() {
  remove_objects # an earlier run may have been killed
  kubectl create namespace $NS >/dev/null
  sed "s|REDIS_IMAGE|$REDIS_IMAGE|" "$CLUSTER_DIR/verify.yaml" >"$WORK/objects.yaml"
  until_ok "default service account" 20 k get serviceaccount default
  kubectl apply -f "$WORK/objects.yaml" >/dev/null
}

main() {
  prepare
  check "a Deployment of two pods rolls out" "successfully rolled out" k rollout status deploy/web --timeout=60s
  check "a pod with a native sidecar becomes Ready" "condition met" k wait --for=condition=Ready pod/side --timeout=60s
  check "its main container reached the sidecar (logs)" "from the sidecar" sidecar_answer
  check "a ClusterIP by its full name" "hello from web-" \
    in_web 'fetch("http://web.drover-verify.svc.cluster.local").then(r => r.text()).then(console.log)'
  check "a ClusterIP by its short name" "hello from web-" \
    in_web 'fetch("http://web").then(r => r.text()).then(console.log)'
  check "exec with stdin" "^xyz$" bash -c "echo xyz | kubectl -n $NS exec -i side -c main -- cat"
  check "a projected token, accepted by TokenReview for its audience" \
    "^true system:serviceaccount:$NS:default$" token_review
  check "a ValidatingAdmissionPolicy denies" "may not mount a Secret" pod_with_secret
  check "PodSecurity restricted refuses a plain pod" "violates PodSecurity" \
    kubectl -n $NS-restricted run bad --image="$NODE_IMAGE"
  check "PodSecurity restricted admits a good pod" created good_pod
  check "and it runs" "condition met" \
    kubectl -n $NS-restricted wait --for=condition=Ready pod/good --timeout=30s
  check "forced deletion" deleted \
    timeout 15 kubectl -n $NS-restricted delete pod good --grace-period=0 --force
  check "redis answers" PONG k exec redis -- redis-cli ping
  check "a container that ends is started again" yes restarted
  check "a memory limit is enforced" OOMKilled out_of_memory
  check "port-forward" "hello from web-" forward
  check "helm install and uninstall" uninstalled helm_release
  check "the kubelet's metrics through the API server" "^kubelet_running_pods" node_metrics
  [[ $(mode) != own ]] || check "this machine reaches a ClusterIP" "hello from web-" \
    curl -s -m 5 "http://$(k get service web -o jsonpath='{.spec.clusterIP}')"
  [[ $(cat "$STATE/cni/kind" 2>/dev/null) != cilium ]] || check_network_policy
  echo "$passed passed, $failed failed"
  [[ $failed -eq 0 ]]
}

main
