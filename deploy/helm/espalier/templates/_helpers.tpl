{{- define "espalier.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "espalier.labels" -}}
app.kubernetes.io/name: espalier
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "espalier.selector" -}}
app.kubernetes.io/name: espalier
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "espalier.serviceAccount" -}}
{{- default (ternary (include "espalier.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{/* Pod of a component: root, component (api or worker), role, values, settings (more of them), restartPolicy. */}}
{{- define "espalier.pod" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
serviceAccountName: {{ include "espalier.serviceAccount" $root }}
# Its variables would look like settings.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: espalier
    image: "{{ $values.image.repository }}:{{ default $root.Chart.AppVersion $values.image.tag }}"
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: ["serve"]
    ports:
      - name: http
        containerPort: 8080
    env:
      - name: ESPALIER_ROLE
        value: {{ .role }}
      - name: DATABASE_URL_FILE
        value: /secrets/database/url
      - name: ESPALIER_BLOB_STORE
        value: {{ required "blobStore.url is needed: pods share no volume" $values.blobStore.url | quote }}
      - name: ESPALIER_BLOB_CACHE_SIZE
        value: {{ printf "%sB" $values.blobStore.cacheSize | quote }}
      {{- if $values.apiKeys.existingSecret }}
      - name: ESPALIER_API_KEYS_FILE
        value: /secrets/api-keys/api_keys
      {{- end }}
      {{- if $values.adminKeys.existingSecret }}
      - name: ESPALIER_ADMIN_KEYS_FILE
        value: /secrets/admin-keys/admin_keys
      {{- end }}
      {{- range $name, $value := merge (deepCopy (default dict .settings)) .values.settings $values.settings }}
      - name: {{ $name }}
        value: {{ $value | quote }}
      {{- end }}
    {{- with $values.blobStore.existingSecret }}
    envFrom:
      - secretRef:
          name: {{ . }}
    {{- end }}
    startupProbe:
      httpGet: {path: /health/live, port: http}
      periodSeconds: 2
      # Ten minutes: a base model of the hub is downloaded first.
      failureThreshold: 300
    livenessProbe:
      httpGet: {path: /health/live, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: /health/ready, port: http}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 2
    {{- if eq .component "api" }}
    lifecycle:
      preStop:
        # Load balancers stop sending requests first.
        exec: {command: ["sleep", "3"]}
    {{- end }}
    resources: {{- toYaml .values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: ["ALL"]
    volumeMounts:
      - {name: data, mountPath: /data}
      - {name: tmp, mountPath: /tmp}
      - {name: database, mountPath: /secrets/database, readOnly: true}
      {{- if $values.apiKeys.existingSecret }}
      - {name: api-keys, mountPath: /secrets/api-keys, readOnly: true}
      {{- end }}
      {{- if $values.adminKeys.existingSecret }}
      - {name: admin-keys, mountPath: /secrets/admin-keys, readOnly: true}
      {{- end }}
volumes:
  - name: data
    emptyDir: {sizeLimit: {{ $values.blobStore.scratchSize }}}
  - name: tmp
    emptyDir: {}
  - name: database
    secret:
      secretName: {{ required "database.existingSecret is needed" $values.database.existingSecret }}
      items: [{key: {{ $values.database.key }}, path: url}]
  {{- with $values.apiKeys }}
  {{- if .existingSecret }}
  - name: api-keys
    secret:
      secretName: {{ .existingSecret }}
      items: [{key: {{ .key }}, path: api_keys}]
  {{- end }}
  {{- end }}
  {{- with $values.adminKeys }}
  {{- if .existingSecret }}
  - name: admin-keys
    secret:
      secretName: {{ .existingSecret }}
      items: [{key: {{ .key }}, path: admin_keys}]
  {{- end }}
  {{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
