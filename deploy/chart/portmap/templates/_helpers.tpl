{{/* The name of the application, without the release. */}}
{{- define "portmap.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of the objects. */}}
{{- define "portmap.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "portmap.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "portmap.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The labels that select the pods of the agent. They never change. */}}
{{- define "portmap.selectorLabels" -}}
app.kubernetes.io/name: {{ include "portmap.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of all objects. */}}
{{- define "portmap.labels" -}}
{{ include "portmap.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "portmap.serviceAccountName" -}}
{{- default (ternary (include "portmap.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "portmap.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* ADDRESS:PORT of a map with `address` and `port`, with brackets around an IPv6 address. */}}
{{- define "portmap.endpoint" -}}
{{- $address := .address | trimPrefix "[" | trimSuffix "]" }}
{{- printf (ternary "[%s]:%d" "%s:%d" (contains ":" $address)) $address (int .port) }}
{{- end }}

{{/* Fails if Prometheus cannot read `/metrics`, or would read them twice. `of` is the name of a monitor. */}}
{{- define "portmap.requireMetrics" -}}
{{- if and .root.Values.serviceMonitor.enabled .root.Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled exclude each other: all metrics would be there twice" }}
{{- end }}
{{- with .root.Values.prometheus }}
{{- if not .enabled }}
{{- fail (printf "%s.enabled needs prometheus.enabled" $.of) }}
{{- end }}
{{- if or (hasPrefix "127." .address) (has .address (list "::1" "[::1]")) }}
{{- $remedy := "needs a prometheus.address that Prometheus can reach, such as \"::\"" }}
{{- fail (printf "%s.enabled %s: %s is only for processes of the node" $.of $remedy .address) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The request of a probe. The arguments are the root and the path. */}}
{{- define "portmap.probe" -}}
httpGet:
  {{- if .root.Values.hostNetwork }}
  host: 127.0.0.1
  port: {{ .root.Values.healthz.probePort }}
  {{- else }}
  port: {{ .root.Values.healthz.port }}
  {{- end }}
  path: {{ .path }}
{{- end }}

{{/* The name of the node as `instance`, which the alerts and the dashboard show. */}}
{{- define "portmap.relabelings" -}}
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: instance
{{- end }}
