"""Adds the sidecar to pods as they are created: a mutating admission webhook of Kubernetes (admission.k8s.io/v1)."""
