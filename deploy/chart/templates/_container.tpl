{{/* A setting as the text of a variable. Helm reads whole numbers as floats, which print as 6.7e+07. */}}
{{- define "convvae.text" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{- define "convvae.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "convvae.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Flags of `convvae` that connect to the server in this release. */}}
{{- define "convvae.tlsFlags" -}}
{{- if .Values.tls.secretName -}}
- --tls
{{- if .Values.tls.hasCA }}
- --tls-ca=/etc/convvae/tls/ca.crt
{{- end }}
- --tls-server-name={{ default (printf "%s.%s.svc" (include "convvae.fullname" .) .Release.Namespace) .Values.tls.serverName }}
{{- end }}
{{- end -}}

{{/* One question about a name of health. Kubernetes asks by itself, but it knows no TLS. Health needs no token. */}}
{{- define "convvae.healthCheck" -}}
{{- if .root.Values.tls.secretName -}}
exec:
  command:
    - convvae
    - health
    - --target=127.0.0.1:50051
    - --timeout=4
    - --retries=0
    {{- with include "convvae.tlsFlags" .root }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .service }}
    - --service={{ . }}
    {{- end }}
timeoutSeconds: 6
{{- else -}}
grpc:
  port: 50051
  {{- with .service }}
  service: {{ . }}
  {{- end }}
timeoutSeconds: 5
{{- end -}}
{{- end -}}

{{- define "convvae.probes" -}}
{{- $startPeriod := ternary 5 1 (ne .Values.tls.secretName "") -}}
startupProbe:
  {{- include "convvae.healthCheck" (dict "root" . "service" "liveness") | nindent 2 }}
  periodSeconds: {{ $startPeriod }}
  failureThreshold: {{ max 1 (div (int .Values.probes.startupSeconds) $startPeriod) }}
readinessProbe:
  {{- include "convvae.healthCheck" (dict "root" . "service" "") | nindent 2 }}
  periodSeconds: {{ .Values.probes.readinessPeriodSeconds }}
  failureThreshold: 2
livenessProbe:
  {{- include "convvae.healthCheck" (dict "root" . "service" "liveness") | nindent 2 }}
  periodSeconds: {{ .Values.probes.livenessPeriodSeconds }}
  failureThreshold: 3
{{- end -}}
