{{/* What names of objects begin with. With `-certificates` a CronJob's name has the 52 letters that it may have. */}}
{{- define "sark-pdp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 39 | trimSuffix "-" -}}
{{- else if contains "sark-pdp" .Release.Name -}}
{{- .Release.Name | trunc 39 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-sark-pdp" .Release.Name | trunc 39 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The webhook leaves pods with this name alone: it is never another. Given a list: the root and the component. */}}
{{- define "sark-pdp.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: sark-pdp
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
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
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" (include "sark-pdp.fullname" .)) }}
{{- fail (printf "no Service can be called %s: set fullnameOverride to a name of letters, digits and hyphens that begins with a letter" (include "sark-pdp.fullname" .)) }}
{{- end }}
{{- if and .Values.injector.enabled (eq .Values.sidecar.mode "native") (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail "before Kubernetes 1.29 a pod waits for a native sidecar for ever: set sidecar.mode=container" }}
{{- end }}
{{- range $of, $url := dict "database" .Values.database.dsn "registry" .Values.registry.dsn "redis" .Values.redis.url "migrations.audit" .Values.migrations.audit.dsn "migrations.registry" .Values.migrations.registry.dsn }}
{{- if regexMatch "[?&](password|sslpassword|oauth_client_secret|scram_client_key|scram_server_key)=" $url }}
{{- fail (printf "%s holds a secret that everybody could read: put the password into a Secret, and name that in %s.passwordSecret" (ternary "redis.url" (printf "%s.dsn" $of) (eq $of "redis")) $of) }}
{{- end }}
{{- end }}
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
{{- $cluster := and (eq .Values.certificates.mode "certManager") (hasSuffix "ClusterIssuer" (dig "kind" "" .Values.certificates.certManager.issuerRef)) }}
{{- if and $writer.clientCertificates (not $cluster) (ne .Values.certificates.mode "existing") }}
{{- fail "auditWriter.clientCertificates needs certificates.mode existing, or certManager with an issuerRef of kind ClusterIssuer: nobody else signs for sidecars" }}
{{- end }}
{{- if and $writer.autoscaling.enabled (gt (int $writer.autoscaling.minReplicas) (int $writer.autoscaling.maxReplicas)) }}
{{- fail "auditWriter.autoscaling.minReplicas is above maxReplicas: lower the one or raise the other" }}
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

{{/* Ports as a list in YAML: those that are given, and those that URLs or connection strings name. Given a list: the ports, and
     the strings. */}}
{{- define "sark-pdp.ports" -}}
{{- $ports := list -}}
{{- range index . 0 }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- range rest . }}
{{- $hosts := regexReplaceAll "^[a-z]+://([^@/]*@)?" (. | default "") "" | regexFind "^[^/?]*" -}}
{{- $named := concat (regexFindAll ":[0-9]+(,|$)" $hosts -1) (regexFindAll "(^|[?& ])port=[0-9,]+" (. | default "") -1) -}}
{{- range regexFindAll "[0-9]+" (join "," $named) -1 }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- end }}
{{- $ports | uniq | toYaml -}}
{{- end -}}

{{/* A rule of a NetworkPolicy, as YAML. Given a list: the root, and connection strings. */}}
{{- define "sark-pdp.toDatabase" -}}
{{- $policy := (index . 0).Values.networkPolicy -}}
{{- $ports := include "sark-pdp.ports" (prepend (rest .) $policy.databasePorts) | fromYamlArray -}}
{{- dict "to" $policy.databaseTo "ports" $ports | toYaml -}}
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

{{/* The volume with the authority of a store, as YAML, or nothing. Given a list: its name and a reference to the Secret. */}}
{{- define "sark-pdp.authorityVolume" -}}
{{- $name := printf "%s-ca" (index . 0) -}}
{{- with index . 1 }}
{{- if .name -}}
{{- $authority := dict "secretName" .name "items" (list (dict "key" .key "path" "ca.crt")) -}}
{{ dict "name" $name "path" (printf "/run/secrets/%s" $name) "source" (dict "secret" $authority) | toYaml }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where libpq looks for that authority when the connection string names none, as YAML; given the volume. */}}
{{- define "sark-pdp.authorityVariable" -}}
{{- list (dict "name" "PGSSLROOTCERT" "value" (printf "%s/ca.crt" .path)) | toYaml -}}
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
