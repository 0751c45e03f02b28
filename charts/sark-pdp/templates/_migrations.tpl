{{/* The Jobs that migrate, as YAML: by name, the connection string, the Secret with its password, flags of the command, whether
     the database is the trial's own, and the Secret with its authority. */}}
{{- define "sark-pdp.migrations" -}}
{{- $jobs := dict }}
{{- with .Values.migrations.audit }}
{{- if and .enabled $.Values.auditWriter.enabled }}
{{- $secret := ternary (include "sark-pdp.secretRef" (list $ .passwordSecret false)) (include "sark-pdp.databaseSecret" $) (ne .passwordSecret.name "") }}
{{- $_ := set $jobs "audit" (dict "dsn" (.dsn | default (include "sark-pdp.databaseDsn" $)) "secret" $secret "flags" (list) "authority" $.Values.database.caSecret "trial" (and $.Values.trial.enabled (not .dsn) (not $.Values.database.dsn))) }}
{{- end }}
{{- end }}
{{- with .Values.migrations.registry }}
{{- if .enabled }}
{{- $secret := ternary (include "sark-pdp.secretRef" (list $ .passwordSecret false)) (include "sark-pdp.registrySecret" $) (ne .passwordSecret.name "") }}
{{- $_ := set $jobs "registry" (dict "dsn" (.dsn | default (include "sark-pdp.registryDsn" $)) "secret" $secret "flags" (prepend .flags "--registry") "authority" $.Values.registry.caSecret "trial" (and $.Values.trial.enabled (not .dsn) (not $.Values.registry.dsn))) }}
{{- end }}
{{- end }}
{{- $jobs | toYaml -}}
{{- end -}}
