{{- define "dfs-cluster.name" -}}
{{- $name := .Values.nameOverride | default .Release.Name }}
{{- if gt (len $name) 40 }}
{{- fail (printf "a DfsCluster's name has at most 40 characters, and %q has %d: set nameOverride" $name (len $name)) }}
{{- end }}
{{- $name }}
{{- end }}

{{- define "dfs-cluster.labels" -}}
{{- $own := dict "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) }}
{{- toYaml (merge $own .Values.commonLabels) }}
{{- end }}

{{- define "dfs-cluster.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}
