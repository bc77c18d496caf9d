{{- /*
What the operator may do where it watches. Every verb has its reason. A claim is deleted only where the spec says so
(pvcRetention) or a person gave up its datanode by uuid, after the tracker has deregistered that; any other data goes only when a person deletes it.
StatefulSets are deleted without their pods alone, to be made again with a larger template of claims.
*/ -}}
{{- define "dfs-operator.rules" -}}
- apiGroups: [dfs.io]
  resources: [dfsclusters]
  verbs:
    - get # read again before a step that cannot be taken back
    - list # find them at the start
    - watch # hear of changes
    - patch # take an acknowledgement away once the catalog is back, or the lost datanode is replaced
- apiGroups: [dfs.io]
  resources: [dfsclusters/status]
  verbs:
    - patch # conditions, counts, and what is needed to go on after a restart
- apiGroups: [dfs.io]
  resources: [dfsclusters/finalizers]
  verbs:
    - update # own objects that block its deletion, where the API server checks that
- apiGroups: [apps]
  resources: [statefulsets]
  verbs:
    - get # compare with what is wanted
    - list # find them at the start
    - watch # hear of pods that became ready
    - create # server-side apply of a new one
    - patch # server-side apply; lower the datanodes by one that is proved empty
    - delete # made anew around its pods (orphaned) when storage.size grows: a template of claims cannot change
- apiGroups: [apps]
  resources: [deployments]
  verbs:
    - get # compare with what is wanted
    - list # find them at the start
    - watch # hear of pods that became ready
    - create # server-side apply of a new one
    - patch # server-side apply
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs:
    - get # compare with what is wanted
    - list # find them at the start
    - watch # put back what somebody changed
    - create # server-side apply of a new one
    - patch # server-side apply
- apiGroups: [""]
  resources: [secrets]
  verbs:
    - get # the cluster token, to speak to the tracker
    - list # find them at the start (only those with our label are asked for)
    - watch # hear of a rotated token
    - create # the token of a new cluster
    - patch # server-side apply
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs:
    - get # compare with what is wanted
    - list # find them at the start
    - watch # put back what somebody changed
    - create # server-side apply of a new one
    - patch # allow as many evictions as the data can bear
    - delete # none is wanted with one replica of each chunk
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, ingresses]
  verbs:
    - get # compare with what is wanted
    - list # find them at the start
    - watch # put back what somebody changed
    - create # server-side apply of a new one
    - patch # server-side apply
    - delete # the door or the policy was turned off
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs:
    - get # compare with what is wanted
    - list # find them at the start
    - watch # put back what somebody changed
    - create # server-side apply of a new one
    - patch # server-side apply
    - delete # the door was turned off
- apiGroups: [""]
  resources: [pods]
  verbs:
    - get # the pod that a datanode says it is
    - list # match datanodes with pods
    - watch # hear of pods that come and go
    - delete # one that cannot end on a fenced node (nodeLossPolicy), whose datanode a person gave up by its uuid, or in which nothing serves and a newer template is there
- apiGroups: [""]
  resources: [pods/eviction]
  verbs:
    - create # restart one that serves, as its disruption budget allows
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs:
    - get # the volume that a datanode says it is on
    - list # match datanodes with volumes, by UID
    - watch # hear of claims that are gone
    - patch # grow a claim when the size in the spec grows
    - delete # of a removed datanode where pvcRetention.whenScaled is Delete, or of one that a person gave up by its uuid
- apiGroups: [events.k8s.io, ""]
  resources: [events]
  verbs:
    - create # say what was done, and why not
    - patch # count what happens again
{{- end }}

{{- define "dfs-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "dfs-operator.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
