{{- define "chutes-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Kubernetes would create the other objects and refuse the Service. The name of the release can be one that a Service cannot have. */}}
{{- define "chutes-exporter.checkName" -}}
{{- $name := include "chutes-exporter.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "A Service cannot have the name %s: set fullnameOverride to a name of lower-case letters, digits and hyphens that starts with a letter" $name) }}
{{- end }}
{{- end }}

{{/* Selectors cannot change after the installation, so they contain only these. */}}
{{- define "chutes-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "chutes-exporter.labels" -}}
{{ include "chutes-exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Without a miner, the exporter would watch the whole subnet by accident. */}}
{{- define "chutes-exporter.checkMiner" -}}
{{- $elsewhere := regexMatch "(^| )--hotkey[ =]" (join " " .Values.extraArgs) }}
{{- $flags := join " " .Values.extraArgs }}
{{- $chosen := or .Values.subnet .Values.existingSecret .Values.hotkeys (contains "--hotkey" $flags) }}
{{- range .Values.extraEnv }}
{{- if eq .name "CHUTES_EXPORTER_HOTKEY" }}
{{- $elsewhere = true }}
{{- end }}
{{- if has .name (list "CHUTES_EXPORTER_HOTKEY" "CHUTES_EXPORTER_HOTKEY_FILE" "HOTKEY" "MINER_SS58") }}
{{- $chosen = true }}
{{- end }}
{{- end }}
{{- if not $chosen }}
{{- fail "No miner is chosen: set existingSecret or hotkeys, or set subnet=true to watch the whole subnet" }}
{{- end }}
{{- /* A flag would replace the variable that hotkeys sets, and their miners would not be watched. */}}
{{- if and .Values.hotkeys $elsewhere }}
{{- fail "Hotkeys are in two places: put all of them into hotkeys, and none into extraArgs or extraEnv" }}
{{- end }}
{{- end }}

{{/* Kubernetes merges variables by name, and server-side apply refuses a name that occurs twice. */}}
{{- define "chutes-exporter.checkVariables" -}}
{{- $secret := and .Values.existingSecret (not .Values.subnet) }}
{{- $names := list }}
{{- range .Values.extraEnv }}
{{- if and $secret (has .name (list "MINER_SS58" "MINER_SEED")) }}
{{- fail (printf "existingSecret sets %s: remove it from extraEnv, or set existingSecret to \"\"" .name) }}
{{- end }}
{{- if has .name $names }}
{{- fail (printf "extraEnv sets %s twice: remove one" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}

{{/* The probes, the Service and the NetworkPolicy would miss an exporter on another port. Flags replace the variable. */}}
{{- define "chutes-exporter.checkPort" -}}
{{- $addresses := regexFindAll "--web\\.listen-address[ =]\\S+" (join " " .Values.extraArgs) -1 }}
{{- if not $addresses }}
{{- range .Values.extraEnv }}
{{- if and .value (eq .name "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS") }}
{{- $addresses = list .value }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $addresses (not (regexMatch ":10064(\\s|$)" (join " " $addresses))) }}
{{- fail "The pod's port is 10064: add :10064 to --web.listen-address, or remove the flag from extraArgs and its variable from extraEnv" }}
{{- end }}
{{- end }}

{{/* Renders a map of the values after keys that the chart sets, none of which may occur twice. Takes the map's name, the map, and these keys. */}}
{{- define "chutes-exporter.extra" -}}
{{- $name := index . 0 }}
{{- $map := index . 1 }}
{{- range index . 2 }}
{{- if hasKey $map . }}
{{- fail (printf "%s cannot set %s, because the chart sets it" $name .) }}
{{- end }}
{{- end }}
{{- toYaml $map }}
{{- end }}

{{/* Takes the root context, the name of a map of labels in the values, and the map. */}}
{{- define "chutes-exporter.extraLabels" -}}
{{- $labels := include "chutes-exporter.labels" (index . 0) | fromYaml }}
{{- include "chutes-exporter.extra" (list (index . 1) (index . 2) (keys $labels | sortAlpha)) }}
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
