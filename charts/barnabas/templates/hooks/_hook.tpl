{{/* A service account of a hook's own, with rules; call with (dict "root" $ "hook" "test" "name" … "component" … "namespace" … "rules" …).
     It is there before the hook's pod, and goes with it. */}}
{{- define "barnabas.hookAccount" -}}
{{- $annotations := printf "helm.sh/hook: %s\nhelm.sh/hook-weight: \"-5\"\nhelm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed" .hook -}}
{{- $labels := include "barnabas.labels" (dict "root" .root "component" .component) -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
  annotations:
    {{- $annotations | nindent 4 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- $labels | nindent 4 }}
  annotations:
    {{- $annotations | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- $labels | nindent 4 }}
  annotations:
    {{- $annotations | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }}}
subjects:
  - {kind: ServiceAccount, name: {{ .name }}, namespace: {{ .root.Release.Namespace }}}
{{- end -}}

{{/* What a hook's pod has beside its arguments: it needs next to nothing. Call with (dict "root" $ "account" …) */}}
{{- define "barnabas.hookPod" -}}
serviceAccountName: {{ .account }}
enableServiceLinks: false
{{- include "barnabas.pullSecrets" .root }}
securityContext:
  {{- include "barnabas.podSecurity" .root | nindent 2 }}
{{- with .root.Values.operator.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  # Nodes that are being drained will do.
  - {key: node.kubernetes.io/unschedulable, operator: Exists, effect: NoSchedule}
  {{- with .root.Values.operator.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "barnabas.hookContainer" -}}
image: {{ include "barnabas.image" (dict "root" . "image" .Values.image.operator) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 128Mi}
securityContext:
  {{- include "barnabas.containerSecurity" . | nindent 2 }}
{{- end -}}
