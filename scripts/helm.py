"""The checks of helm.sh; the argument is helm's program."""

import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

CHART = Path("deploy/helm/espalier")
VERSIONS = ["1.27", "1.30", "1.33", "1.35"]
BLOBS = {"blobStore": {"url": "s3://bucket/prefix?region=eu-central-1"}}

# Values, and the kinds that they make.
CASES = {
    "the least": (BLOBS, ["Deployment", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]),
    "one process each": (
        {**BLOBS, "workers": {"mode": "none"}, "api": {"podDisruptionBudget": {"enabled": False}}, "serviceAccount": {"create": False}},
        ["Deployment", "Service"],
    ),
    "everything": (
        {
            "blobStore": {"url": "s3://bucket", "existingSecret": "s3"},
            "adminKeys": {"existingSecret": "admin"},
            "settings": {"ESPALIER_KEEP_JOBS": "30d", "ESPALIER_MAX_INPUTS": 64},
            "api": {"settings": {"ESPALIER_MAX_INPUTS": 32}, "nodeSelector": {"disk": "ssd"}},
            "workers": {"mode": "scaledJob", "settings": {"ESPALIER_SLOTS": 2}, "tolerations": [{"operator": "Exists"}]},
            "imagePullSecrets": [{"name": "registry"}],
            "networkPolicy": {"enabled": True},
            "serviceMonitor": {"enabled": True, "keySecret": "metrics"},
            "inferencePool": {"enabled": True, "endpointPicker": {"name": "picker"}},
        },
        ["Deployment", "InferencePool", "NetworkPolicy", "PodDisruptionBudget", "ScaledJob", "Service", "ServiceAccount", "ServiceMonitor",
         "TriggerAuthentication"],
    ),
}

# Values, and a part of the message with which they are refused.
REFUSED = [
    ({}, "blobStore.url is needed"),
    ({"blobStore": {"url": "/mnt/blobs"}}, "blobStore.url"),
    ({**BLOBS, "workers": {"mode": "daemon"}}, "workers.mode"),
    ({**BLOBS, "api": {"replica": 3}}, "replica"),
    ({**BLOBS, "settings": {"KEEP_JOBS": "30d"}}, "KEEP_JOBS"),
    ({**BLOBS, "inferencePool": {"enabled": True}}, "inferencePool.endpointPicker.name is needed"),
]


def helm(program, *arguments):
    return subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def render(program, values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return helm(program, "template", "release", CHART, "--values", file.name)


def settings(pod):
    return {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}


def check_settings(objects):
    """What the values set arrives in the pods."""
    by_kind = {one["kind"]: one for one in objects}
    api = settings(by_kind["Deployment"]["spec"]["template"]["spec"])
    worker = settings(by_kind["ScaledJob"]["spec"]["jobTargetRef"]["template"]["spec"])
    assert (api["ESPALIER_ROLE"], worker["ESPALIER_ROLE"]) == ("api", "worker")
    assert (api["ESPALIER_MAX_INPUTS"], worker["ESPALIER_MAX_INPUTS"]) == ("32", "64"), "settings of the component win"
    assert worker["ESPALIER_EXIT_WHEN_IDLE"] == "30s" and worker["ESPALIER_SLOTS"] == "2"
    assert api["ESPALIER_BLOB_CACHE_SIZE"] == "10GiB"


def main():
    program, checked = sys.argv[1], 0
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(BLOBS, file)
        file.flush()
        linted = helm(program, "lint", "--strict", CHART, "--values", file.name)
    assert linted.returncode == 0, linted.stdout
    for name, (values, kinds) in CASES.items():
        rendered = render(program, values)
        assert rendered.returncode == 0, f"{name}: {rendered.stderr}"
        objects = [one for one in yaml.safe_load_all(rendered.stdout) if one]
        assert sorted(one["kind"] for one in objects) == kinds, f"{name}: {sorted(one['kind'] for one in objects)}"
        # Objects of extensions have no schema here.
        for one in (one for one in objects if "." not in one["apiVersion"].split("/")[0] or "k8s.io" in one["apiVersion"]):
            if one["kind"] in ("InferencePool",):
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)
                checked += 1
        if name == "everything":
            check_settings(objects)
    for values, message in REFUSED:
        rendered = render(program, values)
        assert rendered.returncode != 0 and message in rendered.stderr, f"{values}: {rendered.stderr or 'accepted'}"
    print(f"helm: {len(CASES)} sets of values, {checked} checks of objects against Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}, {len(REFUSED)} refusals")


if __name__ == "__main__":
    main()
