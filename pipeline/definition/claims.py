"""The names of what the steps mount; apart from the definition, as to know them needs no kfp."""

IMAGES_CLAIM = "external-images-kubeflow-pvc"
WORKDIR_CLAIM = "kubeflow-workdir-pvc"
SOCKET_CLAIM = "dockervol-pvc"
SECRET = "dockercreds"  # noqa: S105 - the name of a Kubernetes secret, not one
