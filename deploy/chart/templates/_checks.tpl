{{/* Rules on several values, which a schema cannot say in a sentence. */}}
{{- define "convvae.check" -}}
{{- $values := .Values -}}
{{- $settings := $values.settings -}}
{{- $native := eq (default "auto" $settings.front) "native" -}}
{{- $scaling := $values.autoscaling -}}
{{- $resources := default dict $values.resources -}}
{{- if not $values.image.repository -}}
{{- fail "image.repository is empty: push the image of deploy/service.Dockerfile to a registry that the cluster reads, and name it" -}}
{{- end -}}
{{- if and (eq $values.models.source "pvc") (not $values.models.pvc.claimName) -}}
{{- fail "models.pvc.claimName is empty: name the PersistentVolumeClaim with the models, or choose another models.source" -}}
{{- end -}}
{{- if and (eq $values.models.source "bucket") (not $values.models.bucket.url) -}}
{{- fail "models.bucket.url is empty: give rclone's name of the folder with the models" -}}
{{- end -}}
{{- if and (eq $values.models.source "image") (not $values.models.image.reference) -}}
{{- fail "models.image.reference is empty: name the OCI image with the models" -}}
{{- end -}}
{{- if and $values.tokens.secretName (not $values.tls.secretName) (not $settings.allow_insecure_tokens) -}}
{{- fail "tokens would travel in plain text: set tls.secretName, or settings.allow_insecure_tokens if you trust the network" -}}
{{- end -}}
{{- if and $native $values.tls.secretName -}}
{{- fail "settings.front native has no TLS: leave settings.front or tls.secretName out" -}}
{{- end -}}
{{- if and $native (gt (float64 (default 0 $settings.max_connection_age_s)) 0.0) -}}
{{- fail "settings.front native has no max_connection_age_s: set settings.max_connection_age_s to 0" -}}
{{- end -}}
{{- if $scaling.enabled -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas (%d) is above autoscaling.maxReplicas (%d)" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq (int $scaling.cpuPercent) 0) (eq $scaling.queue.source "off") -}}
{{- fail "autoscaling has no metric: set autoscaling.cpuPercent or autoscaling.queue.source" -}}
{{- end -}}
{{- if and (gt (int $scaling.cpuPercent) 0) (not (dig "requests" "cpu" "" $resources)) (not (dig "limits" "cpu" "" $resources)) -}}
{{- fail "autoscaling.cpuPercent needs resources.requests.cpu" -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString $values.rollout.maxSurge) "0") (eq (toString $values.rollout.maxUnavailable) "0") -}}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0: no pod could be replaced" -}}
{{- end -}}
{{- end -}}
