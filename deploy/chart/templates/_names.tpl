{{- define "convvae.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* A name for services: no dots, and at most 50 characters, so that suffixes such as -headless fit into 63. */}}
{{- define "convvae.fullname" -}}
{{- $name := include "convvae.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "convvae.headless" -}}
{{- include "convvae.fullname" . }}-headless
{{- end -}}

{{/* Labels that never change, for selectors. */}}
{{- define "convvae.selector" -}}
app.kubernetes.io/name: {{ include "convvae.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "convvae.labels" -}}
app.kubernetes.io/name: {{ include "convvae.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "convvae.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (ternary "gpu" "cpu" (gt (int .Values.gpu.count) 0)) $image.tag }}
{{- end -}}
{{- end -}}

{{- define "convvae.serviceAccount" -}}
{{- default (ternary (include "convvae.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}
