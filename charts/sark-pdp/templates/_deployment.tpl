{{/*
A central process. Given a dictionary:

root        the chart's context
component   its name, and that of its values in camel case (values)
args        of sark-pdp
ports       of the container, as in a pod
probe       the port of /healthz and /readyz; without it, tcp is the port that must accept connections
config      what its ConfigMap holds, for a restart when that changes; or empty
volumes     mounted read-only, a list of {name, path, source}
token       whether it has the token of its service account
env         variables, as in a pod; or none
preStop     a command before it is told to stop; or none
*/}}
{{- define "sark-pdp.deployment" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s" (include "sark-pdp.fullname" $root) .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "sark-pdp.labels" (list $root .component) | nindent 4 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false .values) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "sark-pdp.selector" (list $root .component) | nindent 6 }}
  template:
    metadata:
      labels: {{- include "sark-pdp.labels" (list $root .component) | nindent 8 }}
      {{- if or .config $root.Values.podAnnotations }}
      annotations:
        {{- with .config }}
        checksum/config: {{ sha256sum . }}
        {{- end }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
    spec:
      serviceAccountName: {{ ternary $name (include "sark-pdp.fullname" $root) (.token | default false) }}
      automountServiceAccountToken: {{ .token | default false }}
      enableServiceLinks: false
      securityContext: {{- include "sark-pdp.podSecurity" $root | nindent 8 }}
      {{- include "sark-pdp.scheduling" $root | nindent 6 }}
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "sark-pdp.selector" (list $root $.component) | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "sark-pdp.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: {{- toYaml .args | nindent 12 }}
          {{- with .env }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports: {{- toYaml .ports | nindent 12 }}
          {{- if .probe }}
          # A first look that is patient: the database may come up with it.
          startupProbe:
            httpGet: {path: /healthz, port: {{ .probe }}}
            periodSeconds: 1
            timeoutSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: /readyz, port: {{ .probe }}}
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 3
          livenessProbe:
            httpGet: {path: /healthz, port: {{ .probe }}}
            periodSeconds: 10
            timeoutSeconds: 2
            failureThreshold: 6
          {{- else }}
          readinessProbe:
            tcpSocket: {port: {{ .tcp }}}
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 3
          livenessProbe:
            tcpSocket: {port: {{ .tcp }}}
            periodSeconds: 10
            timeoutSeconds: 2
            failureThreshold: 6
          {{- end }}
          {{- with .preStop }}
          lifecycle:
            preStop: {exec: {command: {{ toJson . }}}}
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          securityContext: {{- include "sark-pdp.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            {{- range .volumes }}
            - {name: {{ .name }}, mountPath: {{ .path }}, readOnly: true}
            {{- end }}
            - {name: tmp, mountPath: /tmp}
      volumes:
        {{- range .volumes }}
        - name: {{ .name }}
          {{- toYaml .source | nindent 10 }}
        {{- end }}
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
{{- end -}}

{{/* At most one of several is taken away at once. Given a list: the root, the component, its values. */}}
{{- define "sark-pdp.disruptionBudget" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- if or (gt (int $values.replicas) 1) (dig "autoscaling" "enabled" false $values) }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "sark-pdp.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "sark-pdp.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: 1
  # A pod that does not become ready anyway must not hold a node up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "sark-pdp.selector" (list $root (index . 1)) | nindent 6 }}
{{- end }}
{{- end -}}
