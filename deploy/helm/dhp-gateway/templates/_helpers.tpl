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

{{/* As above: what replicas must share, and what they cannot. */}}
{{- define "gateway.checkSharing" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- $store := dig "store" "url" "memory://" .Values.settings }}
{{- $database := dig "outbox" "url" "sqlite://" .Values.settings }}
{{- range .Values.env }}
{{- if eq .name "DHP_GATEWAY_STORE__URL" }}{{ $store = "elsewhere" }}{{ end }}
{{- if eq .name "DHP_GATEWAY_OUTBOX__URL" }}{{ $database = "elsewhere" }}{{ end }}
{{- end }}
{{- if and $several (dig "login" "enabled" false .Values.settings) (hasPrefix "memory:" $store) }}
{{- fail "settings.login.enabled with several replicas: a session would be known to one of them only; name a Redis in settings.store.url, or set replicaCount to 1" }}
{{- end }}
{{- if and (dig "outbox" "enabled" false .Values.settings) (hasPrefix "sqlite:" $database) (not .Values.persistence.enabled) }}
{{- fail "settings.outbox.enabled: SQLite needs a volume, set persistence.enabled and replicaCount: 1; several replicas need a PostgreSQL in settings.outbox.url (or, with its password, DHP_GATEWAY_OUTBOX__URL in env)" }}
{{- end }}
{{- if and $several .Values.persistence.enabled }}
{{- fail "persistence.enabled: the volume belongs to one pod; set replicaCount to 1 and leave autoscaling off" }}
{{- end }}
{{- end }}

{{/* The pod of `helm test`: not the gateway's own labels, or it would get callers. */}}
{{- define "gateway.testLabels" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
