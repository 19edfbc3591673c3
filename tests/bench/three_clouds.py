"""Three loopback clouds, and a machine that is signed in to all of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.front import Front, responder
from clouds.azure import ORGANIZATION, RESOURCE, AzureCloud
from clouds.google import PROJECT, SCOPE, GoogleCloud
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact
from uvtokend.sandbox.machine import Machine

REGION = "eu-central-1"

AWS_SCRIPT = f"""
import boto3
client = boto3.client("codeartifact", region_name="{REGION}")
print(client.get_authorization_token(domain="acme", domainOwner="{ACCOUNT}")["authorizationToken"])
"""
GOOGLE_SCRIPT = f"""
import google.auth, google.auth.transport.requests
credentials, _ = google.auth.default(scopes=["{SCOPE}"])
credentials.refresh(google.auth.transport.requests.Request())
print(credentials.token)
"""
AZURE_SCRIPT = f"""
from azure.identity import DefaultAzureCredential
print(DefaultAzureCredential().get_token("{RESOURCE}/.default").token)
"""


class ThreeClouds:
    """A context manager with the clouds and the machine.

    Args:
        directory: An empty directory with a short path.

    Attributes:
        machine: The machine, whose environment contains the sign-ins.
        tables: Provider -> the table of an index.
        scripts: Provider -> a script that makes the same call with the same SDK.
    """

    def __init__(self, directory: Path) -> None:
        self.aws, self.google, self.azure = CodeArtifact(), GoogleCloud(), AzureCloud()
        self.front = Front()
        sites = {**self.google.sites, **self.azure.sites}
        self.front.hosts |= {host: responder(site) for host, site in sites.items()}
        self.machine = machine = Machine(directory)
        keys = [self._key(f"builder-{number}") for number in (1, 2)]
        client, secret = self.azure.application()
        machine.environment |= {
            **self.aws.environment(),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_EC2_METADATA_DISABLED": "true",
            "GOOGLE_APPLICATION_CREDENTIALS": keys[0],
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "NO_GCE_CHECK": "true",
            "AZURE_CLIENT_ID": client,
            "AZURE_TENANT_ID": self.azure.tenant,
            "AZURE_CLIENT_SECRET": secret,
            "HTTPS_PROXY": self.front.url,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": self.front.ca_file,
        }
        feed = f"https://pkgs.dev.azure.com/{ORGANIZATION}/_packaging/platform/pypi/simple/"
        self.tables = {
            "aws-codeartifact": _aws("acme"),
            "google-artifact-registry": _google("europe", keys[0]),
            "azure-artifacts": f'name = "platform"\nurl = "{feed}"\n',
        }
        self.scripts = {
            "aws-codeartifact": AWS_SCRIPT,
            "google-artifact-registry": GOOGLE_SCRIPT,
            "azure-artifacts": AZURE_SCRIPT,
        }
        five = [*self.tables.values(), _aws("other"), _google("us", keys[1])]
        machine.write(*(f"[[index]]\n{table}" for table in five))

    def _key(self, name: str) -> str:
        file = self.machine.home / f"{name}.json"
        file.write_text(json.dumps(self.google.service_account(f"{name}@{PROJECT}.iam.gserviceaccount.com")))
        return str(file)

    def down(self) -> None:
        """Let every cloud refuse connections until `up`."""
        self.front.down()
        self.aws.server.down()

    def up(self) -> None:
        """Let the clouds answer again."""
        self.aws.server.up()
        self.front.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.front.close()
        self.aws.close()


def _aws(domain: str) -> str:
    host = f"{domain}-{ACCOUNT}.d.codeartifact.{REGION}.amazonaws.com"
    return f'name = "{domain}"\nurl = "https://{host}/pypi/production/simple/"\n'


def _google(region: str, key: str) -> str:
    url = f"https://{region}-python.pkg.dev/acme-ml/models/simple/"
    return f'name = "{region}"\nurl = "{url}"\ncredentials-file = "{key}"\n'
