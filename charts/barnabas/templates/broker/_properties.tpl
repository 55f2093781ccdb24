{{/* What all brokers have in common; broker.config has the last word on what is no reserved key */}}
{{- define "barnabas.broker.properties" -}}
{{- $replicas := int .Values.broker.replicas -}}
{{- $few := min 3 $replicas -}}
{{- $external := .Values.listeners.external.enabled -}}
{{- $settings := dict
  "offsets.topic.replication.factor" $few
  "transaction.state.log.replication.factor" $few
  "transaction.state.log.min.isr" (min 2 $few)
  "default.replication.factor" $few
  "min.insync.replicas" (min 2 $few)
-}}
{{- range $key, $value := .Values.broker.config -}}
{{- $_ := set $settings $key $value -}}
{{- end -}}
zookeeper.connect={{ include "barnabas.zookeeperConnect" . }}
zookeeper.session.timeout.ms={{ int .Values.zookeeper.sessionTimeoutMs }}
broker.id.generation.enable=false
log.dirs=/var/lib/barnabas/data
listeners=INTERNAL://0.0.0.0:{{ .Values.listeners.internal.port }}{{ if $external }},EXTERNAL://0.0.0.0:{{ .Values.listeners.external.port }}{{ end }}
listener.security.protocol.map=INTERNAL:PLAINTEXT{{ if $external }},EXTERNAL:PLAINTEXT{{ end }}
inter.broker.listener.name=INTERNAL
{{- range $key := keys $settings | sortAlpha }}
{{- $value := get $settings $key }}
{{ $key }}={{ if kindIs "float64" $value }}{{ if eq (floor $value) $value }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}{{ else }}{{ $value }}{{ end }}
{{- end }}
{{- end -}}
