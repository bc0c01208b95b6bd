{{- define "drover.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "drover.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "drover.labels" -}}
app.kubernetes.io/name: drover
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: drover
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Selector labels of one component: dict "root" $ "component" "operator" */}}
{{- define "drover.selector" -}}
app.kubernetes.io/name: drover
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "drover.redisUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "drover.name" . }}-valkey:6379
{{- else -}}
{{ required "redis.url must be set (or valkey.enabled=true for an evaluation)" .Values.redis.url }}
{{- end -}}
{{- end }}

{{- define "drover.redisSecret" -}}
{{- if and .Values.valkey.enabled .Values.valkey.password -}}
{{ include "drover.name" . }}-valkey
{{- else -}}
{{ .Values.redis.existingSecret }}
{{- end -}}
{{- end }}

{{- define "drover.redisSecretKey" -}}
{{- if and .Values.valkey.enabled .Values.valkey.password -}}password{{- else -}}{{ .Values.redis.existingSecretKey }}{{- end -}}
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

{{- define "drover.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "drover.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
