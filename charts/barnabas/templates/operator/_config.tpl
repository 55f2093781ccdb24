{{- define "barnabas.operator.namespaces" -}}
{{- toJson (.Values.operator.watchNamespaces | default (list .Release.Namespace)) -}}
{{- end -}}

{{- define "barnabas.operator.config" -}}
clusterName: {{ include "barnabas.fullname" . }}
bootstrapServers: {{ include "barnabas.bootstrapServers" . }}
zookeeperConnect: {{ include "barnabas.zookeeperConnect" . }}
watchNamespaces: {{ include "barnabas.operator.namespaces" . }}
clusterScope: {{ .Values.rbac.clusterScope }}
brokerStatefulSet: {{ include "barnabas.broker.name" . }}
stateConfigMap: {{ include "barnabas.fullname" . }}-balancer-state
lease: {{ include "barnabas.operator.name" . }}
listen: 0.0.0.0:{{ .Values.metrics.port }}
{{- with .Values.operator.topicPolicy }}
topicPolicy:
  {{- toYaml . | nindent 2 }}
{{- end }}
balancing:
  {{- toYaml .Values.operator.balancing | nindent 2 }}
{{- end -}}
