{{- /* The groups of files/rules.yaml, tuned by the values: what PrometheusRule and a plain rules file share. */ -}}
{{- define "dfs-operator.ruleGroups" -}}
{{- $values := .Values.rules }}
{{- $groups := list }}
{{- range (fromYaml (.Files.Get "files/rules.yaml")).groups }}
  {{- $rules := list }}
  {{- range $rule := .rules }}
    {{- if $rule.record }}
      {{- /* Of a recorded number, one for each window of its group. */ -}}
    {{- else }}
      {{- $tuned := index $values.alerts $rule.alert | default dict }}
      {{- if dig "enabled" true $tuned }}
        {{- $rules = append $rules (fromYaml (include "dfs-operator.alert" (dict "rule" $rule "tuned" $tuned "values" $values))) }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- $records := .rules }}
  {{- range $window := .windows }}
    {{- range $rule := $records }}
      {{- $expr := $rule.expr | replace "$window" $window }}
      {{- $rules = append $rules (dict "record" ($rule.record | replace "$window" $window) "expr" $expr) }}
    {{- end }}
  {{- end }}
  {{- if $rules }}
    {{- $groups = append $groups (dict "name" .name "rules" $rules) }}
  {{- end }}
{{- end }}
{{- toYaml (dict "groups" $groups) }}
{{- end }}

{{- define "dfs-operator.alert" -}}
{{- $rule := .rule }}
{{- $tuned := .tuned }}
{{- $threshold := toString (dig "threshold" (dig "threshold" "" $rule) $tuned) }}
{{- $expr := $rule.expr | replace "$threshold" $threshold }}
{{- $expr = $expr | replace "$readBudget" (printf "(1 - %v / 100)" .values.objectives.reads) }}
{{- $expr = $expr | replace "$writeBudget" (printf "(1 - %v / 100)" .values.objectives.writes) }}
{{- $page := printf "%s/%s.md" (trimSuffix "/" .values.runbooks) ($rule.runbook | default $rule.alert) }}
{{- $annotations := dict "summary" $rule.summary "description" ($rule.description | replace "$threshold" $threshold) "runbook_url" $page }}
{{- $labels := merge (dict "severity" ($tuned.severity | default $rule.severity)) ($tuned.labels | default dict) }}
{{- $alert := dict "alert" $rule.alert "expr" $expr "for" ($tuned.for | default $rule.for) "labels" $labels "annotations" $annotations }}
{{- with $tuned.keepFiringFor }}
{{- $_ := set $alert "keep_firing_for" . }}
{{- end }}
{{- toYaml $alert }}
{{- end }}

{{- /* Labels of an object that a Prometheus selects. */ -}}
{{- define "dfs-operator.selected" -}}
{{- $labels := fromYaml (include "dfs-operator.labels" .root) }}
{{- toYaml (merge $labels .labels) }}
{{- end }}
