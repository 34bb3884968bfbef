{{/* The name that all objects of a release begin with, in at most 40 characters: suffixes are added to it. */}}
{{- define "sidecar.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "sidecar.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sidecar.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sidecar.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidecar.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "sidecar.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* What tells this release's pods of one component from all others: (dict "root" $ "component" "server"). */}}
{{- define "sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sidecar.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The labels of an object: (dict "root" $ "component" "server"). */}}
{{- define "sidecar.labels" -}}
{{ include "sidecar.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image's name: (dict "image" .Values.image "tag" .Chart.AppVersion); the tag is a default. */}}
{{- define "sidecar.image" -}}
{{- with .image.registry }}{{ . }}/{{ end -}}
{{- .image.repository -}}
{{- if .image.digest -}}@{{ .image.digest }}{{- else -}}:{{ .image.tag | default .tag }}{{- end -}}
{{- end -}}

{{/* The Secrets, and the keys in them: the operator's, or those that the chart makes, whose keys are fixed. */}}
{{- define "sidecar.adminTokenSecret" -}}
{{- .Values.admin.token.existingSecret | default (printf "%s-admin-token" (include "sidecar.fullname" .)) -}}
{{- end -}}

{{- define "sidecar.adminTokenKey" -}}
{{- ternary .Values.admin.token.key "token" (not (empty .Values.admin.token.existingSecret)) -}}
{{- end -}}

{{- define "sidecar.adminTlsSecret" -}}
{{- .Values.admin.tls.existingSecret | default (printf "%s-admin-tls" (include "sidecar.fullname" .)) -}}
{{- end -}}

{{- define "sidecar.redisSecret" -}}
{{- .Values.redis.auth.existingSecret | default (printf "%s-redis" (include "sidecar.fullname" .)) -}}
{{- end -}}

{{- define "sidecar.redisKey" -}}
{{- ternary .Values.redis.auth.key "password" (not (empty .Values.redis.auth.existingSecret)) -}}
{{- end -}}
