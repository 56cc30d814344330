"""What the interoperability tests share: our programs and moto. They start on free ports and stop at the end."""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERGATE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "debug" / "peergate"
BIN = pathlib.Path(sys.executable).parent
PATIENCE_S = 120

CI_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
AUDIT_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Program:
    """A process that prints where it listens. Its output is kept."""

    def __init__(self, command, pattern, **more):
        self.output = []
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
        )
        self.found = threading.Event()
        self.url = None

        def read():
            for line in self.process.stdout:
                self.output.append(line)
                match = re.search(pattern, line)
                if match and not self.found.is_set():
                    self.url = match.group(1)
                    self.found.set()
            self.found.set()

        threading.Thread(target=read, daemon=True).start()
        self.found.wait(PATIENCE_S)
        if not self.url:
            self.stop()
            raise AssertionError(f"{command} did not start:\n{''.join(self.output)}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def fetch(url, body=None, headers=None, method=None):
    """Status and text of an exchange, whatever the status."""
    data = body.encode() if isinstance(body, str) else body
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what}")


@pytest.fixture(scope="session", autouse=True)
def built():
    """A missing part fails the run: no test is skipped."""
    assert PEERGATE.exists(), f"{PEERGATE} is missing: run `cargo build --features local`"
    for tool in ["moto_server", "cargo-lambda", "cfn-lint", "sam"]:
        assert (BIN / tool).exists(), f"{tool} is missing: run `make tools`"


@pytest.fixture
def simulator():
    program = Program([PEERGATE, "simulate", "--activation-ms", "300", "--well-known-keys"], r"listening on (http://\S+)")
    yield program
    program.stop()


@pytest.fixture(scope="session")
def moto():
    program = Program([BIN / "moto_server", "--host", "127.0.0.1", "--port", "0"], r"Running on (http://\S+)")
    yield program
    program.stop()


def configuration(simulator, directory, chat="http://127.0.0.1:9"):
    """peergate.toml and the secrets of a small installation, in `directory`."""
    (directory / "peergate.toml").write_text(
        f"""
[targets.prod]
account = "2222222222222222"
regions = ["cn-shanghai"]
endpoint = "{simulator.url}/"
sts_endpoint = "{simulator.url}/"
[clients.ci]
[platforms.slack]
teams = ["T0001"]
app = "A0123"
response_origins = ["{chat}/"]
[channels.audit]
kind = "standard-webhooks"
[people.alice]
principals = ["slack:T0001/U061F7AUR", "webhook:ci/alice"]
[[rule]]
name = "data team"
target = "prod"
approvals = 1
approvers = ["person:alice"]
channels = ["audit"]
"""
    )
    secrets = {
        "targets": {"prod": {"access_key_id": "accepter-key", "access_key_secret": "accepter-secret"}},
        "clients": {"ci": {"signing_secrets": [CI_SECRET]}},
        "platforms": {"slack": {"signing_secrets": [SLACK_SECRET]}},
        "binding_keys": ["YSBrZXkgb2YgYnV0dG9ucywgdGhpcnR5LXR3byBieXRlcyE="],
        "channels": {"audit": {"url": f"{chat}/audit", "signing_secrets": [AUDIT_SECRET]}},
    }
    (directory / "peergate.secrets.json").write_text(json.dumps(secrets))
    return secrets


def environment(directory, **more):
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PEERGATE_"))}
    return {
        **keep,
        "PEERGATE_CONFIG": str(directory / "peergate.toml"),
        "PEERGATE_SECRETS": f"file:{directory / 'peergate.secrets.json'}",
        **more,
    }


def event(directory, *arguments):
    """What `peergate event` prints."""
    printed = subprocess.run(
        [PEERGATE, "event", *arguments], env=environment(directory), capture_output=True, text=True, check=True
    )
    return json.loads(printed.stdout)
