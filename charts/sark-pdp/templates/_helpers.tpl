{{/* What names of objects begin with. */}}
{{- define "sark-pdp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "sark-pdp" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-sark-pdp" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The webhook leaves pods with this name alone: it is never another. Given a list: the root and the component. */}}
{{- define "sark-pdp.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: sark-pdp
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "sark-pdp.labels" -}}
{{- $root := index . 0 -}}
{{ include "sark-pdp.selector" . }}
app.kubernetes.io/part-of: sark-pdp
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sark-pdp.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the installation could not work: one sentence that says what to set. */}}
{{- define "sark-pdp.check" -}}
{{- $writer := .Values.auditWriter -}}
{{- if and $writer.enabled (not (include "sark-pdp.databaseDsn" .)) }}
{{- fail "auditWriter.enabled needs database.dsn, or trial.enabled" }}
{{- end }}
{{- if and .Values.publisher.enabled (not (and (include "sark-pdp.registryDsn" .) (include "sark-pdp.redisUrl" .))) }}
{{- fail "publisher.enabled needs registry.dsn and redis.url, or trial.enabled" }}
{{- end }}
{{- if and .Values.bundleServer.enabled (not .Values.bundleServer.volume) }}
{{- fail "bundleServer.enabled needs bundleServer.volume, the folder of bundles that it serves" }}
{{- end }}
{{- if and .Values.migrations.registry.enabled (not .Values.migrations.registry.dsn) (not (include "sark-pdp.registryDsn" .)) }}
{{- fail "migrations.registry.enabled needs migrations.registry.dsn or registry.dsn, or trial.enabled" }}
{{- end }}
{{- if and $writer.clientCertificates (not $writer.tls) }}
{{- fail "auditWriter.clientCertificates needs auditWriter.tls" }}
{{- end }}
{{- if and $writer.enabled $writer.tls .Values.injector.enabled (not .Values.sidecar.secret) (not (dig "audit" "tls" "ca_file" "" .Values.sidecar.settings)) }}
{{- fail "auditWriter.tls needs sidecar.secret, the Secret in which sidecars find ca.crt, or sidecar.settings.audit.tls.ca_file" }}
{{- end }}
{{- if eq .Values.certificates.mode "existing" }}
{{- with .Values.certificates.existing }}
{{- if and $.Values.injector.enabled (not (and .injectorSecret .injectorCaBundle)) }}
{{- fail "certificates.mode existing needs certificates.existing.injectorSecret and injectorCaBundle" }}
{{- end }}
{{- if and $writer.enabled $writer.tls (not .writerSecret) }}
{{- fail "certificates.mode existing needs certificates.existing.writerSecret, or auditWriter.tls false" }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sark-pdp.databaseDsn" -}}
{{- if .Values.database.dsn -}}
{{ .Values.database.dsn }}
{{- else if .Values.trial.enabled -}}
postgresql://sark@{{ include "sark-pdp.fullname" . }}-timescaledb:5432/sark
{{- end -}}
{{- end -}}

{{- define "sark-pdp.registryDsn" -}}
{{- if .Values.registry.dsn -}}
{{ .Values.registry.dsn }}
{{- else if .Values.trial.enabled -}}
postgresql://sark@{{ include "sark-pdp.fullname" . }}-timescaledb:5432/sark
{{- end -}}
{{- end -}}

{{- define "sark-pdp.redisUrl" -}}
{{- if .Values.redis.url -}}
{{ .Values.redis.url }}
{{- else if .Values.trial.enabled -}}
redis://{{ include "sark-pdp.fullname" . }}-redis.{{ .Release.Namespace }}.svc:6379/0
{{- end -}}
{{- end -}}

{{/* A reference to a Secret, as YAML with name and key, or nothing. Given: the root, the reference, and whether it is
     for something that the trial brings. */}}
{{- define "sark-pdp.secretRef" -}}
{{- $root := index . 0 -}}
{{- $given := index . 1 -}}
{{- if $given.name -}}
{{ dict "name" $given.name "key" $given.key | toYaml }}
{{- else if and $root.Values.trial.enabled (index . 2) -}}
{{ dict "name" $root.Values.trial.secret "key" "password" | toYaml }}
{{- end -}}
{{- end -}}

{{- define "sark-pdp.databaseSecret" -}}
{{ include "sark-pdp.secretRef" (list . .Values.database.passwordSecret (not .Values.database.dsn)) }}
{{- end -}}

{{- define "sark-pdp.registrySecret" -}}
{{ include "sark-pdp.secretRef" (list . .Values.registry.passwordSecret (not .Values.registry.dsn)) }}
{{- end -}}

{{- define "sark-pdp.redisSecret" -}}
{{ include "sark-pdp.secretRef" (list . .Values.redis.passwordSecret (not .Values.redis.url)) }}
{{- end -}}

{{/* The Secret with the certificate of `injector` or `writer`: a list of the root and one of these. */}}
{{- define "sark-pdp.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- $existing := $root.Values.certificates.existing -}}
{{- if eq $root.Values.certificates.mode "existing" -}}
{{ ternary $existing.injectorSecret $existing.writerSecret (eq (index . 1) "injector") }}
{{- else -}}
{{ include "sark-pdp.fullname" $root }}-{{ ternary "injector" "audit-writer" (eq (index . 1) "injector") }}-tls
{{- end -}}
{{- end -}}

{{/* What the restricted Pod Security Standard asks of a pod, and of a container. */}}
{{- define "sark-pdp.podSecurity" -}}
{{- dict "runAsNonRoot" true "runAsUser" (int64 .Values.runAsUser) "runAsGroup" (int64 .Values.runAsUser) "fsGroup" (int64 .Values.runAsUser) "seccompProfile" (dict "type" "RuntimeDefault") | toYaml -}}
{{- end -}}

{{- define "sark-pdp.containerSecurity" -}}
{{- dict "allowPrivilegeEscalation" false "capabilities" (dict "drop" (list "ALL")) "readOnlyRootFilesystem" true | toYaml -}}
{{- end -}}

{{- define "sark-pdp.scheduling" -}}
{{- with .Values.scheduling.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
