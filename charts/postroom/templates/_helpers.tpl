{{- define "postroom.fullname" -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}
{{- end }}

{{- define "postroom.keyNamespace" -}}{{ .Values.keyNamespace.name | default (printf "%s-keys" .Release.Namespace) }}{{- end }}

{{/* Takes (root, component). */}}
{{- define "postroom.selectorLabels" -}}
app.kubernetes.io/name: postroom
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "postroom.labels" -}}
{{- $root := index . 0 -}}
{{ include "postroom.selectorLabels" . }}
app.kubernetes.io/part-of: postroom
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Takes (root, service). */}}
{{- define "postroom.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- $name := printf "postroom-%s" (index . 1) -}}
{{- $path := ternary (printf "%s/%s" (trimSuffix "/" $image.registry) $name) $name (ne $image.registry "") -}}
{{- with index $image.digests (index . 1) -}}{{ $path }}@{{ . }}{{- else -}}{{ $path }}:{{ $image.tag | default (index $ 0).Chart.AppVersion }}{{- end -}}
{{- end }}

{{- define "postroom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What every pod has. Takes (root, component, values of the component, seconds of grace). */}}
{{- define "postroom.pod" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}{{ $values := index . 2 -}}
serviceAccountName: {{ include "postroom.fullname" $root }}-{{ $component }}
# The variables of service links would be taken for misspelt settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ index . 3 }}
securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: {matchLabels: {app.kubernetes.io/instance: {{ $root.Release.Name }}, app.kubernetes.io/component: {{ $component }}}}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{/* Settings of every service. Takes (root, values of the component). */}}
{{- define "postroom.env" -}}
{{- $root := index . 0 -}}
- {name: POSTROOM_HTTP, value: "0.0.0.0:2580"}
- {name: POSTROOM_LOG_LEVEL, value: {{ $root.Values.logLevel }}}
{{- range $name, $value := (index . 1).env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* Settings of every delivery pod, NAME=VALUE with commas between them. */}}
{{- define "postroom.deliveryEnvironment" -}}
{{- $settings := list (printf "POSTROOM_LOG_LEVEL=%s" .Values.logLevel) -}}
{{- with .Values.hostname }}{{ $settings = append $settings (printf "POSTROOM_HOSTNAME=%s" .) }}{{ end -}}
{{- with .Values.resolvers }}{{ $settings = append $settings (printf "POSTROOM_RESOLVERS=%s" (join "," .)) }}{{ end -}}
{{- range $name, $value := .Values.delivery.env }}{{ $settings = append $settings (printf "%s=%v" $name $value) }}{{ end -}}
{{- join "," $settings -}}
{{- end }}

{{- define "postroom.probes" -}}
startupProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 60}
readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 2, failureThreshold: 2}
livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3}
{{- end }}

{{/* Takes (root, component, values). The budget holds for one pod at most, and never for pods that are not ready anyway. */}}
{{- define "postroom.disruptionBudget" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "postroom.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{ include "postroom.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{ include "postroom.selectorLabels" (list $root (index . 1)) | nindent 6 }}
{{- end }}

{{- define "postroom.autoscaler" -}}
{{- $root := index . 0 }}{{ $scaling := (index . 2).autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "postroom.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{ include "postroom.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "postroom.fullname" $root }}-{{ index . 1 }}}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ $scaling.targetCPUUtilizationPercentage }}}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 300, policies: [{type: Pods, value: 1, periodSeconds: 60}]}
{{- end }}
