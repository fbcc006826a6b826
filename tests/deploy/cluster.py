"""Stand-ins for docker, ssh, helm and kubectl on a cluster of one node, which is a folder.

They take only what docs/kubernetes.md uses, and fail where a cluster would. Helm's own library renders the chart.
The test starts the exporter as the Deployment says. Each command is a process of its own, so each imports only what it
needs: kubernetes_validate alone takes a second.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Object = dict[str, Any]
NAMES = ("docker", "ssh", "helm", "kubectl")
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that the Prometheus Operator defines."""


def validate(one: Object) -> None:
    """Compare an object with Kubernetes' own schema, if Kubernetes defines it.

    Raises:
        kubernetes_validate.ValidationError: A field is unknown, missing or of a wrong type.
    """
    if one["kind"] not in CUSTOM:
        import kubernetes_validate  # noqa: PLC0415

        kubernetes_validate.validate(one, "1.33", strict=True)


class Cluster:
    """The objects and images of the cluster, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects.json"
        self._images = folder / "images"
        self.built = folder / "built"
        self.port = folder / "port"

    def objects(self) -> list[Object]:
        found: list[Object] = json.loads(self._objects.read_text()) if self._objects.exists() else []
        return found

    def find(self, kind: str, name: str, namespace: str) -> Object:
        for found in self.objects():
            meta = found["metadata"]
            if (found["kind"], meta["name"], meta["namespace"]) == (kind, name, namespace):
                return found
        raise SystemExit(f'Error from server (NotFound): {kind} "{name}" not found in {namespace}')

    def apply(self, objects: Iterable[Object]) -> None:
        stored = {(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]): one for one in self.objects()}
        for one in objects:
            validate(one)
            key = one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]
            # Labels that other commands have set stay.
            if labels := stored[key]["metadata"].get("labels") if key in stored else None:
                one["metadata"]["labels"] = {**labels, **one["metadata"].get("labels", {})}
            stored[key] = one
        self._objects.write_text(json.dumps(list(stored.values())))

    def load(self, images: str) -> None:
        self._images.write_text(images)

    def container(self, name: str, namespace: str) -> Object:
        (found,) = self.find("Deployment", name, namespace)["spec"]["template"]["spec"]["containers"]
        if found["image"] not in self._images.read_text().split():
            raise SystemExit(f"ErrImagePull: {found['image']}")
        return dict(found)

    def environment(self, name: str, namespace: str) -> dict[str, str]:
        """Return the variables of a Deployment's container, those from Secrets too."""
        variables = {}
        for one in self.container(name, namespace).get("env", []):
            if "value" in one:
                variables[one["name"]] = one["value"]
                continue
            reference = one["valueFrom"]["secretKeyRef"]
            secret = self.find("Secret", reference["name"], namespace)
            variables[one["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return variables


def docker(cluster: Cluster, arguments: Sequence[str]) -> None:
    match arguments:
        case ["build", "--tag", image, "."]:
            cluster.built.write_text(image)
        case ["save", image] if image == cluster.built.read_text():
            sys.stdout.write(image)
        case _:
            raise SystemExit(f"docker: {arguments}")


def ssh(cluster: Cluster, arguments: Sequence[str]) -> None:
    if list(arguments) != ["NODE", "sudo", "k3s", "ctr", "images", "import", "-"]:
        raise SystemExit(f"ssh: {arguments}")
    cluster.load(sys.stdin.read())


def helm(cluster: Cluster, arguments: Sequence[str]) -> None:
    import helm_python  # noqa: PLC0415

    from deploy.chart import CHART, render  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="helm upgrade")
    parser.add_argument("upgrade", choices=["upgrade"])
    parser.add_argument("--install", action="store_true", required=True)
    parser.add_argument("release")
    parser.add_argument("chart", type=Path)
    parser.add_argument("--kube-context", choices=["CONTROL"], required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args(arguments)
    if options.chart.resolve() != CHART.resolve():
        raise SystemExit(f"Error: path {options.chart} not found")
    helm_python.validate_release_name(options.release)
    texts = render(values_of(options.set), release=options.release, namespace=options.namespace)
    sys.stdout.write(texts.pop("NOTES.txt"))
    cluster.apply(one for text in texts.values() for one in yaml.safe_load_all(text))


def values_of(expressions: Iterable[str]) -> Object:
    """Return the values of ``--set`` flags."""
    import helm_python  # noqa: PLC0415

    return {key: value for text in expressions for key, value in helm_python.parse_set_string(text).items()}


def kubectl(cluster: Cluster, arguments: Sequence[str]) -> None:
    match arguments:
        case ["--context", "CONTROL", "apply", "-f", path]:
            cluster.apply(yaml.safe_load_all(Path(path).read_text()))
        case ["--context", "CONTROL", "-n", namespace, *command]:
            in_namespace(cluster, namespace, command)
        case _:
            raise SystemExit(f"kubectl: {arguments}")


def in_namespace(cluster: Cluster, namespace: str, command: Sequence[str]) -> None:
    match command:
        case ["rollout", "status", target]:
            probe = cluster.container(deployment(target), namespace)["readinessProbe"]["httpGet"]
            wait_for(f"http://127.0.0.1:{cluster.port.read_text()}{probe['path']}")
        case ["exec", target, "--", *inside]:
            variables = {**os.environ, **cluster.environment(deployment(target), namespace)}
            raise SystemExit(subprocess.run(inside, env=variables, check=False).returncode)
        case ["port-forward", target, ports]:
            local, remote = ports.split(":")
            if int(remote) not in {
                one["containerPort"] for one in cluster.container(deployment(target), namespace)["ports"]
            }:
                raise SystemExit(f"connection refused: {remote}")
            asyncio.run(forward(int(local), int(cluster.port.read_text())))
        case ["create", "configmap", name, source, "--dry-run=client", "-o", "yaml"]:
            folder = Path(source.removeprefix("--from-file="))
            data = {path.name: path.read_text() for path in folder.iterdir()}
            meta = {"name": name, "namespace": namespace}
            # JSON is YAML, and is written and read much faster.
            json.dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}, sys.stdout)
        case ["apply", "--server-side", "-f", "-"]:
            cluster.apply([json.load(sys.stdin)])
        case ["label", "--overwrite", "configmap", name, label]:
            config = cluster.find("ConfigMap", name, namespace)
            key, _, value = label.partition("=")
            config["metadata"]["labels"] = {key: value}
            cluster.apply([config])
        case _:
            raise SystemExit(f"kubectl: {command}")


def deployment(target: str) -> str:
    kind, _, name = target.partition("/")
    if kind != "deployment":
        raise SystemExit(f"not a deployment: {target}")
    return name


def wait_for(url: str) -> None:
    """Wait until the readiness probe succeeds."""
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


async def forward(local: int, remote: int) -> None:
    """Forward connections until the process is ended."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_upstream = await asyncio.open_connection("127.0.0.1", remote)
        await asyncio.gather(pipe(reader, to_upstream), pipe(upstream, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", local) as server:
        await server.serve_forever()


def install(folder: Path) -> dict[str, str]:
    """Put the stand-ins into a folder; returns the environment that finds them and no make or cluster around it."""
    from tests.support import ROOT  # noqa: PLC0415

    (folder / "bin").mkdir()
    for name in NAMES:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.deploy.cluster "{folder}" {name} "$@"\n')
        path.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    search = [str(folder / "bin"), str(Path(sys.executable).parent), kept["PATH"]]
    return {**kept, "PATH": ":".join(search), "PYTHONPATH": str(ROOT)}


def secret(name: str, namespace: str, data: Mapping[str, str]) -> Object:
    """Make a Secret, as the miners' chart does."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


if __name__ == "__main__":
    run = {"docker": docker, "ssh": ssh, "helm": helm, "kubectl": kubectl}
    run[sys.argv[2]](Cluster(Path(sys.argv[1])), sys.argv[3:])
