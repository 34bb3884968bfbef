{{/* The one place with parts of a pod: the Deployment, the StatefulSet and NOTES (for the pod of another chart) show them, and
they must not differ. */}}

{{- define "sidecar.container" -}}
name: sidecar
image: {{ include "sidecar.image" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
ports:
  - name: http
    containerPort: {{ int64 .Values.http.port }}
  {{- if .Values.admin.enabled }}
  - name: admin
    containerPort: {{ int64 .Values.admin.port }}
  {{- end }}
env:
  - name: SIDECAR_CONFIG
    value: /etc/static-invoice-sidecar/settings/sidecar.toml
  - name: SIDECAR_DATADIR
    value: /var/lib/static-invoice-sidecar/data
  - name: SIDECAR_NETWORK
    value: {{ .Values.network | quote }}
  - name: SIDECAR_LND_HOST
    value: {{ ternary .Values.existingLnd.host (printf "localhost:%d" (int64 .Values.lnd.rpc.port)) (eq .Values.shape "beside") | quote }}
  - name: SIDECAR_LND_TLSPATH
    value: /etc/static-invoice-sidecar/lnd/tls.cert
  - name: SIDECAR_LND_MACAROONPATH
    value: /etc/static-invoice-sidecar/lnd/sidecar.macaroon
  {{- if ne .Values.shape "beside" }}
  {{- /* The container `credentials` makes them once LND's wallet is unlocked. */}}
  - name: SIDECAR_LND_WAIT
    value: 1d
  {{- end }}
  {{- if .Values.redis.bundled }}
  - name: SIDECAR_REDIS_URL
    value: redis://{{ include "sidecar.fullname" . }}-redis:6379
  - name: SIDECAR_REDIS_PASSWORDFILE
    value: /etc/static-invoice-sidecar/redis/password
  {{- else if .Values.existingRedis.urlSecret }}
  - name: SIDECAR_REDIS_URLFILE
    value: /etc/static-invoice-sidecar/redis/url
  {{- else }}
  - name: SIDECAR_REDIS_URL
    value: {{ .Values.existingRedis.url | quote }}
  {{- if .Values.existingRedis.passwordSecret }}
  - name: SIDECAR_REDIS_PASSWORDFILE
    value: /etc/static-invoice-sidecar/redis/password
  {{- end }}
  {{- end }}
  - name: SIDECAR_REDIS_DURABILITY
    value: {{ .Values.config.redis.durability | quote }}
  - name: SIDECAR_REDIS_REPLICAS
    value: {{ int64 .Values.config.redis.replicas | quote }}
  - name: SIDECAR_LEASE_TIME
    value: {{ .Values.config.lease.time | quote }}
  {{- /* Whoever asks another one than the leader is told by this name whom to ask. */}}
  - name: SIDECAR_LEASE_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: SIDECAR_HTTP_LISTEN
    value: {{ printf "%s:%d" .Values.listenAddress (int64 .Values.http.port) | quote }}
  {{- if .Values.admin.enabled }}
  - name: SIDECAR_ADMIN_LISTEN
    value: {{ printf "%s:%d" .Values.listenAddress (int64 .Values.admin.port) | quote }}
  - name: SIDECAR_ADMIN_TLSCERT
    value: /etc/static-invoice-sidecar/admin/tls.crt
  - name: SIDECAR_ADMIN_TLSKEY
    value: /etc/static-invoice-sidecar/admin/tls.key
  - name: SIDECAR_ADMIN_TOKENFILE
    value: /etc/static-invoice-sidecar/admin/token
  {{- end }}
  - name: SIDECAR_PATHS_LIFETIME
    value: {{ .Values.config.paths.lifetime | quote }}
  - name: SIDECAR_MAILBOX_TTL
    value: {{ .Values.config.mailbox.ttl | quote }}
  {{- /* A large number out of a file is 5.36870912e+08 unless it is made an integer. */}}
  - name: SIDECAR_MAILBOX_TOTAL_BYTES
    value: {{ int64 .Values.config.mailbox.total_bytes | quote }}
  - name: SIDECAR_LSPS5_TIMESTAMPS
    value: {{ .Values.config.lsps5.timestamps | quote }}
  - name: SIDECAR_LSPS5_COOLDOWN
    value: {{ .Values.config.lsps5.cooldown | quote }}
  - name: SIDECAR_LSPS5_MAX_WEBHOOKS
    value: {{ int64 .Values.config.lsps5.max_webhooks | quote }}
  - name: SIDECAR_LSPS5_PORTS
    value: {{ .Values.config.lsps5.ports | quote }}
  - name: SIDECAR_LSPS5_PRIVATE_NETWORKS
    value: {{ .Values.config.lsps5.private_networks | quote }}
  {{- if .Values.lsps5.ca.configMap }}
  - name: SIDECAR_LSPS5_CAFILE
    value: /etc/static-invoice-sidecar/lsps5-ca/ca.crt
  {{- end }}
  - name: SIDECAR_LOGFORMAT
    value: {{ .Values.config.logformat | quote }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- /* A server that waits (for LND, for Redis, for a macaroon) is alive and not ready. */}}
startupProbe:
  httpGet:
    path: /healthz
    port: http
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet:
    path: /healthz
    port: http
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  {{- toYaml .Values.probes.readiness | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: sidecar-data
    mountPath: /var/lib/static-invoice-sidecar
  {{- /* Folders and never single files: what is replaced in them is seen by a pod that runs. */}}
  - name: sidecar-settings
    mountPath: /etc/static-invoice-sidecar/settings
    readOnly: true
  - name: {{ ternary "lnd" "credentials" (eq .Values.shape "beside") }}
    mountPath: /etc/static-invoice-sidecar/lnd
    readOnly: true
  {{- if or .Values.redis.bundled .Values.existingRedis.urlSecret .Values.existingRedis.passwordSecret }}
  - name: sidecar-redis
    mountPath: /etc/static-invoice-sidecar/redis
    readOnly: true
  {{- end }}
  {{- if and (not .Values.redis.bundled) .Values.existingRedis.ca.configMap }}
  - name: sidecar-redis-ca
    mountPath: /etc/static-invoice-sidecar/redis-ca
    readOnly: true
  {{- end }}
  {{- if .Values.admin.enabled }}
  - name: sidecar-admin
    mountPath: /etc/static-invoice-sidecar/admin
    readOnly: true
  {{- end }}
  {{- if .Values.lsps5.ca.configMap }}
  - name: sidecar-lsps5-ca
    mountPath: /etc/static-invoice-sidecar/lsps5-ca
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What `sidecar` and `credentials` mount, but for LND's own volumes. */}}
{{- define "sidecar.volumes" -}}
- name: sidecar-data
  emptyDir: {}
- name: sidecar-settings
  configMap:
    name: {{ include "sidecar.fullname" . }}
    defaultMode: 0440
{{- if eq .Values.shape "beside" }}
{{- $keys := get (dict
  "lndinit" (dict "tls" "tls.cert" "macaroon" "admin.macaroon")
  "blinkbitcoin" (dict "tls" "tls_base64" "macaroon" "admin_macaroon_base64")
) .Values.existingLnd.preset | default (dict "tls" "tls.cert" "macaroon" "sidecar.macaroon") }}
- name: lnd
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .Values.existingLnd.tls.secret }}
          items:
            - key: {{ .Values.existingLnd.tls.key | default $keys.tls | quote }}
              path: tls.cert
      - secret:
          name: {{ .Values.existingLnd.macaroon.secret }}
          items:
            - key: {{ .Values.existingLnd.macaroon.key | default $keys.macaroon | quote }}
              path: sidecar.macaroon
{{- else }}
{{- /* In memory: whoever has the macaroon can pose as the node. */}}
- name: credentials
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: credentials-script
  configMap:
    name: {{ include "sidecar.fullname" . }}-credentials
    defaultMode: 0440
{{- end }}
{{- if .Values.redis.bundled }}
- name: sidecar-redis
  secret:
    secretName: {{ include "sidecar.redisSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ include "sidecar.redisKey" . | quote }}
        path: password
{{- else if .Values.existingRedis.urlSecret }}
- name: sidecar-redis
  secret:
    secretName: {{ .Values.existingRedis.urlSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.existingRedis.urlKey | quote }}
        path: url
{{- else if .Values.existingRedis.passwordSecret }}
- name: sidecar-redis
  secret:
    secretName: {{ .Values.existingRedis.passwordSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.existingRedis.passwordKey | quote }}
        path: password
{{- end }}
{{- if and (not .Values.redis.bundled) .Values.existingRedis.ca.configMap }}
- name: sidecar-redis-ca
  configMap:
    name: {{ .Values.existingRedis.ca.configMap }}
    defaultMode: 0440
    items:
      - key: {{ .Values.existingRedis.ca.key | quote }}
        path: ca.crt
{{- end }}
{{- if .Values.admin.enabled }}
- name: sidecar-admin
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "sidecar.adminTokenSecret" . }}
          items:
            - key: {{ include "sidecar.adminTokenKey" . | quote }}
              path: token
      - secret:
          name: {{ include "sidecar.adminTlsSecret" . }}
          items:
            - key: tls.crt
              path: tls.crt
            - key: tls.key
              path: tls.key
{{- end }}
{{- if .Values.lsps5.ca.configMap }}
- name: sidecar-lsps5-ca
  configMap:
    name: {{ .Values.lsps5.ca.configMap }}
    defaultMode: 0440
    items:
      - key: {{ .Values.lsps5.ca.key | quote }}
        path: ca.crt
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Bakes the macaroon beside LND: its user is LND's, for LND lets nobody else into its directory. */}}
{{- define "sidecar.credentialsContainer" -}}
{{- $attached := eq .Values.shape "attached" -}}
name: credentials
image: {{ include "sidecar.image" (dict "image" .Values.lnd.image "tag" "") }}
imagePullPolicy: {{ .Values.lnd.image.pullPolicy }}
command: [/bin/sh, /scripts/credentials.sh]
env:
  - name: LNDDIR
    value: {{ ternary .Values.attached.lndDirectory "/lnd" $attached | quote }}
  - name: NETWORK
    value: {{ .Values.network | quote }}
  - name: RPCSERVER
    value: localhost:{{ int64 .Values.lnd.rpc.port }}
  - name: CREDENTIALS
    value: /credentials
resources:
  {{- toYaml .Values.lnd.credentials.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.lnd.securityContext | nindent 2 }}
volumeMounts:
  - name: {{ ternary .Values.attached.lndVolume "data" $attached }}
    mountPath: {{ ternary .Values.attached.lndDirectory "/lnd" $attached }}
    readOnly: true
  - name: credentials
    mountPath: /credentials
  - name: credentials-script
    mountPath: /scripts
    readOnly: true
{{- end -}}
