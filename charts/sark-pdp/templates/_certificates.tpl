{{/* The Secrets that the chart has made, as YAML: by name, the DNS names of the certificate. */}}
{{- define "sark-pdp.issued" -}}
{{- $name := include "sark-pdp.fullname" . -}}
{{- $issued := dict -}}
{{- if .Values.injector.enabled }}
{{- $_ := set $issued (include "sark-pdp.tlsSecret" (list . "injector")) (list (printf "%s-injector.%s.svc" $name .Release.Namespace)) -}}
{{- end }}
{{- if and .Values.auditWriter.enabled .Values.auditWriter.tls }}
{{- $_ := set $issued (include "sark-pdp.tlsSecret" (list . "writer")) (list (printf "%s-audit-writer.%s.svc" $name .Release.Namespace)) -}}
{{- end }}
{{- $issued | toYaml -}}
{{- end -}}

{{/* Makes and renews the certificates: the spec of a Job. */}}
{{- define "sark-pdp.certificatesJob" -}}
{{- $name := printf "%s-certificates" (include "sark-pdp.fullname" .) -}}
{{- $args := list "certificates" (printf "--namespace=%s" .Release.Namespace) (printf "--authority=%s" $name) (printf "--days=%d" (int .Values.certificates.selfSigned.days)) -}}
{{- range $secret, $names := include "sark-pdp.issued" . | fromYaml }}
{{- $args = append $args (printf "--issue=%s=%s" $secret (join "," $names)) -}}
{{- end }}
{{- if .Values.injector.enabled }}
{{- $args = append $args (printf "--webhook=%s-injector" (include "sark-pdp.fullname" .)) -}}
{{- end -}}
backoffLimit: 6
activeDeadlineSeconds: 900
ttlSecondsAfterFinished: 3600
template:
  metadata:
    labels: {{- include "sark-pdp.labels" (list . "certificates") | nindent 6 }}
    {{- with .Values.podAnnotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    serviceAccountName: {{ $name }}
    automountServiceAccountToken: true
    enableServiceLinks: false
    restartPolicy: Never
    securityContext: {{- include "sark-pdp.podSecurity" . | nindent 6 }}
    {{- include "sark-pdp.scheduling" . | nindent 4 }}
    containers:
      - name: certificates
        image: {{ include "sark-pdp.image" . }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args: {{- toYaml $args | nindent 10 }}
        resources: {{- toYaml .Values.certificates.selfSigned.resources | nindent 10 }}
        securityContext: {{- include "sark-pdp.containerSecurity" . | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: 64Mi}
{{- end -}}
