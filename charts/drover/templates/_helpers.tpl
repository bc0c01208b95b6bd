{{- define "drover.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Name of a cluster-scoped object: two releases of one name in two namespaces must not share it. */}}
{{- define "drover.clusterName" -}}
{{ include "drover.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{/* Labels of an object: list $ "component" */}}
{{- define "drover.labels" -}}
{{ include "drover.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: drover
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}

{{/* Labels that never change, which select the pods of a component: list $ "component" */}}
{{- define "drover.selector" -}}
app.kubernetes.io/name: drover
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels the operator puts on every harness pod (src/operator/harness-pool/resources.ts). */}}
{{- define "drover.harnessSelector" -}}
app.kubernetes.io/component: harness
app.kubernetes.io/managed-by: drover-operator
{{- end }}

{{/* And on every pod of the edge (src/operator/edge/resources.ts). */}}
{{- define "drover.edgeSelector" -}}
app.kubernetes.io/component: edge
app.kubernetes.io/managed-by: drover-operator
{{- end }}

{{- define "drover.image" -}}
{{ include "drover.registry" . }}{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "drover.registry" -}}
{{- with .Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}
{{- end }}

{{- define "drover.operatorName" -}}
{{ include "drover.name" . }}-operator
{{- end }}

{{- define "drover.issuerSecret" -}}
{{ .Values.issuer.existingSecret | default "drover-issuer-key" }}
{{- end }}

{{- define "drover.redisUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "drover.name" . }}-valkey.{{ .Release.Namespace }}.svc:6379
{{- else -}}
{{ required "redis.url must be set: the address of Redis >= 7.0 or Valkey >= 8 (or valkey.enabled=true for an evaluation)" .Values.redis.url }}
{{- end -}}
{{- end }}

{{/* Secret with the passwords of Redis; empty when there are none. */}}
{{- define "drover.redisSecret" -}}
{{- if .Values.valkey.enabled -}}
{{ include "drover.name" . }}-valkey
{{- else -}}
{{ .Values.redis.existingSecret }}
{{- end -}}
{{- end }}

{{/* Redis user of a process, and the key of its password in that Secret: list $ "process" */}}
{{- define "drover.redisUsername" -}}
{{- $values := (index . 0).Values -}}
{{- if $values.valkey.enabled -}}
{{ index . 1 }}
{{- else -}}
{{ (index $values.redis.users (index . 1)).username | default $values.redis.username }}
{{- end -}}
{{- end }}

{{- define "drover.redisSecretKey" -}}
{{- $values := (index . 0).Values -}}
{{- if $values.valkey.enabled -}}
{{ index . 1 }}
{{- else -}}
{{ (index $values.redis.users (index . 1)).existingSecretKey | default $values.redis.existingSecretKey }}
{{- end -}}
{{- end }}

{{/* Secret with the authority of Redis' certificate; empty when there is none. */}}
{{- define "drover.redisCaSecret" -}}
{{- if and .Values.redis.caSecret (not .Values.valkey.enabled) -}}
{{- if not (hasPrefix "rediss://" .Values.redis.url) -}}
{{- fail (printf "redis.caSecret is for TLS, and redis.url (%v) does not begin with rediss://" .Values.redis.url) -}}
{{- end -}}
{{ .Values.redis.caSecret }}
{{- end -}}
{{- end }}

{{/* How proxies reach the vault, for the operator to hand on. */}}
{{- define "drover.vaultEnv" -}}
{{- with .Values.vault }}
{{- if .address -}}
- { name: DROVER_VAULT_ADDRESS, value: {{ .address | quote }} }
{{- with .caSecret }}
- { name: DROVER_VAULT_CA_SECRET, value: {{ . | quote }} }
- { name: DROVER_VAULT_CA_SECRET_KEY, value: {{ $.Values.vault.caSecretKey | quote }} }
{{- end }}
{{- with .namespace }}
- { name: DROVER_VAULT_NAMESPACE, value: {{ . | quote }} }
{{- end }}
- { name: DROVER_VAULT_KV_MOUNT, value: {{ .kvMount | quote }} }
- { name: DROVER_VAULT_JWT_MOUNT, value: {{ .jwtMount | quote }} }
- { name: DROVER_VAULT_SESSION_ROLE, value: {{ .sessionRole | quote }} }
- { name: DROVER_VAULT_KUBERNETES_MOUNT, value: {{ .kubernetesMount | quote }} }
- { name: DROVER_VAULT_POOL_ROLE, value: {{ .poolRole | quote }} }
- { name: DROVER_VAULT_SESSION_IDENTITY, value: {{ .sessionIdentity | quote }} }
{{- end }}
{{- end }}
{{- end }}

{{/* `host:port,host:port` of a list of {host, port}, as processes read it. */}}
{{- define "drover.hostPorts" -}}
{{- range $index, $server := . }}{{ if $index }},{{ end }}{{ lower $server.host }}:{{ int $server.port }}{{ end -}}
{{- end }}

{{- define "drover.modelBaseUrl" -}}
{{- if .Values.model.baseUrl -}}
{{ .Values.model.baseUrl }}
{{- else if .Values.scriptedModel.enabled -}}
http://{{ include "drover.name" . }}-scripted-model.{{ .Release.Namespace }}.svc:8080
{{- else -}}
https://api.anthropic.com
{{- end -}}
{{- end }}

{{/* What every pod of ours has in common. A process that needs a token mounts one itself. */}}
{{- define "drover.podDefaults" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Pod Security "restricted", for a pod and for each of its containers. The argument is the UID. */}}
{{- define "drover.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "drover.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* A token for the Kubernetes API where a client in a cluster looks for it: short-lived, renewed by the kubelet. */}}
{{- define "drover.apiTokenVolume" -}}
- name: api-token
  projected:
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3600 }
      - configMap:
          name: kube-root-ca.crt
          items: [{ key: ca.crt, path: ca.crt }]
      - downwardAPI:
          items: [{ path: namespace, fieldRef: { fieldPath: metadata.namespace } }]
{{- end }}

{{- define "drover.apiTokenMount" -}}
- { name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
{{- end }}

{{/* Whether monitoring kinds are rendered; says what is missing instead of leaving the API server to. */}}
{{- define "drover.monitoring" -}}
{{- if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}
yes
{{- else if eq .Values.metrics.renderMode "alwaysRender" -}}
yes
{{- else if eq .Values.metrics.renderMode "failIfMissing" -}}
{{ fail "this cluster has no kinds of monitoring.coreos.com/v1: install the Prometheus operator, or set metrics.renderMode to skipIfMissing (render none) or alwaysRender (do not look)" }}
{{- end -}}
{{- end }}

{{/* Annotations of what the uninstall runs first. The argument is the weight: lower comes first. */}}
{{- define "drover.cleanupHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
