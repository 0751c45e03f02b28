{{/* The settings of each process: what the chart makes, over which the values' `settings` go. */}}

{{/* A volume of settings. Given a list: the root and the component. */}}
{{- define "sark-pdp.configVolume" -}}
{{- dict "name" "config" "path" "/etc/sark-pdp" "source" (dict "configMap" (dict "name" (printf "%s-%s" (include "sark-pdp.fullname" (index . 0)) (index . 1)))) | toYaml -}}
{{- end -}}

{{/* Files of one Secret. Given a list: the name of the volume, its path, the Secret, and keys. */}}
{{- define "sark-pdp.secretVolume" -}}
{{- $items := list -}}
{{- range (index . 3) }}{{ $items = append $items (dict "key" . "path" .) }}{{ end -}}
{{- dict "name" (index . 0) "path" (index . 1) "source" (dict "secret" (dict "secretName" (index . 2) "items" $items "defaultMode" 288)) | toYaml -}}
{{- end -}}

{{- define "sark-pdp.injectorSettings" -}}
{{- $sidecar := dict
  "image" (include "sark-pdp.image" .)
  "image_pull_policy" .Values.image.pullPolicy
  "mode" .Values.sidecar.mode
  "cpu_request" (toString .Values.sidecar.cpuRequest)
  "memory_request" .Values.sidecar.memoryRequest
  "memory_limit" .Values.sidecar.memoryLimit
  "spool_size" .Values.sidecar.spoolSize
  "run_as_user" (int64 .Values.runAsUser)
  "host_network" .Values.sidecar.hostNetwork
  "settings_file" "/etc/sark-pdp/sidecar.yaml" -}}
{{- with .Values.sidecar.cpuLimit }}{{ $_ := set $sidecar "cpu_limit" (toString .) }}{{ end -}}
{{- with .Values.sidecar.secret }}{{ $_ := set $sidecar "secret" . }}{{ end -}}
{{- with .Values.sidecar.envoyImage }}{{ $_ := set $sidecar "envoy_image" . }}{{ end -}}
{{- $made := dict
  "listen" (dict "webhook" "0.0.0.0:9443" "metrics" "0.0.0.0:9014")
  "tls" (dict "cert_file" "/tls/tls.crt" "key_file" "/tls/tls.key")
  "inject" (dict "on_failure" .Values.injector.onFailure "excluded_namespaces" .Values.injector.excludedNamespaces "events" .Values.injector.events)
  "sidecar" $sidecar
  "log" (dict "level" .Values.logLevel) -}}
{{- mergeOverwrite $made (deepCopy .Values.injector.settings) | toYaml -}}
{{- end -}}

{{- define "sark-pdp.sidecarSettings" -}}
{{- $secret := "/etc/sark-pdp/secret" -}}
{{- $made := dict "log" (dict "level" .Values.logLevel) -}}
{{- if .Values.auditWriter.enabled }}
{{- $tls := dict "insecure" true -}}
{{- if .Values.auditWriter.tls }}
{{- $tls = dict "ca_file" (printf "%s/ca.crt" $secret) -}}
{{- if .Values.auditWriter.clientCertificates }}
{{- $_ := set $tls "cert_file" (printf "%s/tls.crt" $secret) -}}
{{- $_ := set $tls "key_file" (printf "%s/tls.key" $secret) -}}
{{- end }}
{{- end }}
{{- $_ := set $made "audit" (dict "writer" (list (printf "%s-audit-writer.%s.svc:9010" (include "sark-pdp.fullname" .) .Release.Namespace)) "tls" $tls) -}}
{{- end }}
{{- $url := include "sark-pdp.redisUrl" . -}}
{{- if and $url .Values.sidecar.secret }}
{{- $l2 := dict "url" $url "prefix" .Values.redis.prefix "mac_key_file" (printf "%s/mac.keys" $secret) -}}
{{- if include "sark-pdp.redisSecret" . }}{{ $_ := set $l2 "password_file" (printf "%s/redis-password" $secret) }}{{ end -}}
{{- if .Values.redis.caSecret.name }}{{ $_ := set $l2 "ca_file" (printf "%s/redis-ca.crt" $secret) }}{{ end -}}
{{- $_ := set $made "cache" (dict "l2" $l2) -}}
{{- end }}
{{- mergeOverwrite $made (deepCopy .Values.sidecar.settings) | toYaml -}}
{{- end -}}

{{- define "sark-pdp.writerSettings" -}}
{{- $made := dict
  "listen" (dict "grpc" "0.0.0.0:9010" "metrics" "0.0.0.0:9012")
  "database" (dict "dsn" (include "sark-pdp.databaseDsn" .))
  "log" (dict "level" .Values.logLevel) -}}
{{- if include "sark-pdp.databaseSecret" . }}
{{- $_ := set $made.database "password_file" "/run/secrets/database/password" -}}
{{- end }}
{{- if .Values.auditWriter.tls }}
{{- $tls := dict "cert_file" "/tls/tls.crt" "key_file" "/tls/tls.key" -}}
{{- if .Values.auditWriter.clientCertificates }}{{ $_ := set $tls "client_ca_file" "/tls/ca.crt" }}{{ end -}}
{{- $_ := set $made "tls" $tls -}}
{{- else }}
{{- $_ := set $made.listen "insecure" true -}}
{{- end }}
{{- mergeOverwrite $made (deepCopy .Values.auditWriter.settings) | toYaml -}}
{{- end -}}

{{- define "sark-pdp.publisherSettings" -}}
{{- $l2 := dict "url" (include "sark-pdp.redisUrl" .) "prefix" .Values.redis.prefix -}}
{{- if include "sark-pdp.redisSecret" . }}{{ $_ := set $l2 "password_file" "/run/secrets/redis/password" }}{{ end -}}
{{- if .Values.redis.caSecret.name }}{{ $_ := set $l2 "ca_file" "/run/secrets/redis-ca/ca.crt" }}{{ end -}}
{{- $registry := dict "postgres_dsn" (include "sark-pdp.registryDsn" .) -}}
{{- if include "sark-pdp.registrySecret" . }}{{ $_ := set $registry "postgres_password_file" "/run/secrets/registry/password" }}{{ end -}}
{{- $made := dict
  "listen" (dict "metrics" "0.0.0.0:9013")
  "attributes" $registry
  "cache" (dict "l2" $l2)
  "log" (dict "level" .Values.logLevel) -}}
{{- mergeOverwrite $made (deepCopy .Values.publisher.settings) | toYaml -}}
{{- end -}}
