{{/* The name of everything: release and chart, once if they are the same; 63 characters are what a label takes. */}}
{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gateway.fullname" -}}
{{- $name := include "gateway.name" . }}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $both .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gateway.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The port of an address of the settings, such as 0.0.0.0:8080 or [::]:8080. The argument is the address. */}}
{{- define "gateway.port" -}}
{{- splitList ":" . | last }}
{{- end }}

{{/* Told here and not by a pod that keeps falling over. */}}
{{- define "gateway.check" -}}
{{- $listen := .Values.settings.listen }}
{{- $login := dig "login" "enabled" false .Values.settings }}
{{- if not (or .Values.settings.callers $listen.allow_anonymous $login) }}
{{- fail "settings.callers is empty: name who may call (an entry with api_key_file, for example), or set settings.listen.allow_anonymous to true if every pod that gets through the NetworkPolicy may use your credential" }}
{{- end }}
{{- end }}

{{/* The pod of `helm test`: not the gateway's own labels, or it would get callers. */}}
{{- define "gateway.testLabels" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
