{{/* Names */}}
{{- define "barnabas.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "barnabas.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "barnabas.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "barnabas.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "barnabas.broker.name" -}}{{ include "barnabas.fullname" . }}-broker{{- end -}}
{{- define "barnabas.broker.headless" -}}{{ include "barnabas.fullname" . }}-brokers{{- end -}}
{{- define "barnabas.bootstrap" -}}{{ include "barnabas.fullname" . }}-bootstrap{{- end -}}
{{- define "barnabas.operator.name" -}}{{ include "barnabas.fullname" . }}-operator{{- end -}}
{{- define "barnabas.zookeeper.name" -}}{{ include "barnabas.fullname" . }}-zookeeper{{- end -}}
{{/* Names of what has no namespace carry the release's. */}}
{{- define "barnabas.clusterwide" -}}{{ printf "%s-%s" .Release.Namespace (include "barnabas.fullname" .) | trunc 100 }}{{- end -}}

{{- define "barnabas.bootstrapServers" -}}
{{ include "barnabas.bootstrap" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:{{ .Values.listeners.internal.port }}
{{- end -}}

{{/* Labels; call with (dict "root" $ "component" "broker") */}}
{{- define "barnabas.selector" -}}
app.kubernetes.io/name: {{ include "barnabas.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "barnabas.labels" -}}
{{ include "barnabas.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image; call with (dict "root" $ "image" .Values.image.broker) */}}
{{- define "barnabas.image" -}}
{{- $repository := .image.repository -}}
{{- /* A repository that names its registry, as docker.io/library/zookeeper does, stays as it is. */ -}}
{{- if and .root.Values.image.registry (not (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $repository)) -}}{{- $repository = printf "%s/%s" .root.Values.image.registry .image.repository -}}{{- end -}}
{{- if .image.digest -}}{{ $repository }}@{{ .image.digest }}
{{- else -}}{{ $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "barnabas.broker.serviceAccount" -}}
{{- if .Values.serviceAccount.broker.create -}}{{ .Values.serviceAccount.broker.name | default (include "barnabas.broker.name" .) }}
{{- else -}}{{ .Values.serviceAccount.broker.name | default "default" }}{{- end -}}
{{- end -}}

{{- define "barnabas.operator.serviceAccount" -}}
{{- if .Values.serviceAccount.operator.create -}}{{ .Values.serviceAccount.operator.name | default (include "barnabas.operator.name" .) }}
{{- else -}}{{ .Values.serviceAccount.operator.name | default "default" }}{{- end -}}
{{- end -}}

{{/* What admits a pod to a namespace with the restricted profile */}}
{{- define "barnabas.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "barnabas.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "barnabas.zookeeperConnect" -}}
{{- if eq .Values.zookeeper.mode "bundled" -}}
{{- $hosts := list -}}
{{- range $id := untilStep 1 (int (add .Values.zookeeper.bundled.replicas 1)) 1 -}}
{{- $hosts = append $hosts (printf "%s-%d.%s.%s.svc.%s:2181" (include "barnabas.zookeeper.name" $) $id (include "barnabas.zookeeper.name" $) $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- join "," $hosts -}}/{{ include "barnabas.fullname" . }}
{{- else -}}
{{- .Values.zookeeper.connect -}}
{{- end -}}
{{- end -}}

{{/* Whether brokers have a label with their zone: the API server copies a node's from 1.35 on */}}
{{- define "barnabas.rackFromLabel" -}}
{{- if or (eq .Values.rack.source "podLabel") (and (eq .Values.rack.source "auto") (semverCompare ">=1.35-0" .Capabilities.KubeVersion.Version)) -}}true{{- end -}}
{{- end -}}

{{/* Whether an init container looks the zone of the node up */}}
{{- define "barnabas.rackFromNode" -}}
{{- if or (eq .Values.rack.source "init") (and (eq .Values.rack.source "auto") (not (include "barnabas.rackFromLabel" .)) .Values.rbac.create .Values.rbac.clusterScope) -}}true{{- end -}}
{{- end -}}

{{/* What the schema cannot say */}}
{{- define "barnabas.check" -}}
{{- $reserved := list "broker.id" "node.id" "broker.id.generation.enable" "broker.rack" "listeners" "advertised.listeners" "listener.security.protocol.map" "inter.broker.listener.name" "log.dir" "log.dirs" "zookeeper.connect" "zookeeper.session.timeout.ms" "barnabas.admin.listener" -}}
{{- range $key, $_ := .Values.broker.config -}}
{{- if has $key $reserved -}}
{{- fail (printf "broker.config: %s is set by the chart; see broker, listeners, rack and zookeeper in the values" $key) -}}
{{- end -}}
{{- end -}}
{{- $external := .Values.listeners.external -}}
{{- if $external.enabled -}}
{{- if eq (int $external.port) (int .Values.listeners.internal.port) -}}
{{- fail "listeners.external.port and listeners.internal.port must differ" -}}
{{- end -}}
{{- if and (eq $external.type "LoadBalancer") (not (contains "{id}" $external.advertisedHostTemplate)) -}}
{{- fail "listeners.external.advertisedHostTemplate must contain {id}: every broker needs an address of its own, as in b{id}.kafka.example.com" -}}
{{- end -}}
{{- if and (eq $external.type "NodePort") (gt (int (add $external.nodePort.first .Values.broker.idOffset .Values.broker.replicas)) 32768) -}}
{{- fail "listeners.external.nodePort.first: the last broker's port would lie above 32767" -}}
{{- end -}}
{{- end -}}
{{- if has (int .Values.metrics.port) (list (int .Values.listeners.internal.port) (int $external.port)) -}}
{{- fail "metrics.port must differ from the ports of the listeners" -}}
{{- end -}}
{{- if and (eq .Values.rack.source "value") (not .Values.rack.value) -}}
{{- fail "rack.source=value needs rack.value" -}}
{{- end -}}
{{- end -}}

{{- define "barnabas.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where pods may run; call with the component's values */}}
{{- define "barnabas.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
