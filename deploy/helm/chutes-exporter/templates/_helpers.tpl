{{- define "chutes-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* As a dependency of another chart, the exporter may need the namespace of the Secret with the key. */}}
{{- define "chutes-exporter.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* Selectors cannot change after the installation, so they contain only these. */}}
{{- define "chutes-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Name, namespace and labels of an object. Takes the root context, more labels, and what follows the name, if anything. */}}
{{- define "chutes-exporter.metadata" -}}
{{- $suffix := get . "suffix" }}
{{- with .root -}}
name: {{ printf "%s%s" (include "chutes-exporter.fullname" . | trunc (sub 63 (len $suffix) | int) | trimSuffix "-") $suffix | quote }}
namespace: {{ include "chutes-exporter.namespace" . | quote }}
labels:
  {{- include "chutes-exporter.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
{{- with .labels }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Without a miner, the exporter would watch the whole subnet by accident. */}}
{{- define "chutes-exporter.checkMiner" -}}
{{- $chosen := or .Values.subnet .Values.existingSecret .Values.hotkeys (contains "--hotkey" (join " " .Values.extraArgs)) }}
{{- range .Values.extraEnv }}
{{- $chosen = or $chosen (has .name (list "CHUTES_EXPORTER_HOTKEY" "CHUTES_EXPORTER_HOTKEY_FILE" "HOTKEY" "MINER_SS58")) }}
{{- end }}
{{- if not $chosen }}
{{- fail "No miner is chosen: set existingSecret or hotkeys, or set subnet=true to watch the whole subnet" }}
{{- end }}
{{- end }}

{{- define "chutes-exporter.args" -}}
{{- if .Values.subnet }}
- --miners
- all
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the pods of the exporter and of `helm test` have in common. */}}
{{- define "chutes-exporter.pod" -}}
# The exporter never calls the Kubernetes API.
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- $fields := dict "imagePullSecrets" .Values.imagePullSecrets "nodeSelector" .Values.nodeSelector "tolerations" .Values.tolerations "affinity" .Values.affinity "volumes" .Values.extraVolumes }}
{{- range $field, $value := $fields }}
{{- with $value }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "chutes-exporter.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- $key := and .Values.existingSecret (not .Values.subnet) }}
{{- if or $key .Values.hotkeys .Values.chainUrl .Values.extraEnv }}
env:
  {{- with .Values.hotkeys }}
  # A variable, so that commands such as status know them too.
  - name: CHUTES_EXPORTER_HOTKEY
    value: {{ join " " . | quote }}
  {{- end }}
  {{- with .Values.chainUrl }}
  - name: CHUTES_EXPORTER_CHAIN_URL
    value: {{ . | quote }}
  {{- end }}
  {{- if $key }}
  - name: MINER_SS58
    valueFrom:
      secretKeyRef:
        name: {{ .Values.existingSecret | quote }}
        key: ss58
  - name: MINER_SEED
    valueFrom:
      secretKeyRef:
        name: {{ .Values.existingSecret | quote }}
        key: seed
        optional: true
  # The Secret has one of both. With neither, or with both, the exporter ends with an error.
  - name: MINER_PRIVATE_KEY
    valueFrom:
      secretKeyRef:
        name: {{ .Values.existingSecret | quote }}
        key: privateKey
        optional: true
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "chutes-exporter.resources" -}}
{{- $limit := ternary "512Mi" "256Mi" .Values.subnet }}
{{- $measured := dict "requests" (dict "cpu" "50m" "memory" "64Mi") "limits" (dict "memory" $limit) }}
{{- mergeOverwrite $measured (deepCopy .Values.resources) | toYaml }}
{{- end }}

{{/* Takes the root context and a path. */}}
{{- define "chutes-exporter.probe" -}}
{{- $protocol := (index . 0).Values.probes.protocol }}
{{- if eq $protocol "TCP" -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: metrics
  {{- if eq $protocol "HTTPS" }}
  scheme: HTTPS
  {{- end }}
{{- end }}
{{- end }}
