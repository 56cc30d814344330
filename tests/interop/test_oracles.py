"""The official libraries agree with what we sign."""

import http.server
import json
import subprocess
import threading

import botocore.exceptions
import pytest

from conftest import AUDIT_SECRET, CI_SECRET, PEERGATE, SLACK_SECRET, Program, configuration, environment, event, fetch
from conftest import wait_for
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook


def test_slack_sdk_accepts_only_our_unchanged_events(simulator, tmp_path):
    configuration(simulator, tmp_path)
    made = event(tmp_path, "approve", "pcc-a", "--provider", "slack", "--actor", "U061F7AUR")
    verifier = SignatureVerifier(SLACK_SECRET)
    assert verifier.is_valid_request(made["body"], made["headers"])
    assert not verifier.is_valid_request(made["body"] + "x", made["headers"])


def test_standardwebhooks_accepts_our_events(simulator, tmp_path):
    configuration(simulator, tmp_path)
    made = event(tmp_path, "reject", "pcc-a", "--reason", "größer", "--actor", "alice")
    payload = Webhook(CI_SECRET).verify(made["body"], made["headers"])
    assert payload["type"] == "peering.reject" and payload["data"]["reason"] == "größer"


class Chat(http.server.BaseHTTPRequestHandler):
    """Stores what is posted."""

    posts = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.posts.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def test_serve_carries_out_an_approval_and_signs_notifications(simulator, tmp_path):
    """`peergate serve` and `peergate event`, as a person with one machine uses them."""
    chat = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=chat.serve_forever, daemon=True).start()
    configuration(simulator, tmp_path, chat=f"http://127.0.0.1:{chat.server_port}")
    instance_id = request_peering(simulator)
    command = [PEERGATE, "serve", "--listen", "127.0.0.1:0", "--store", str(tmp_path / "peergate.db")]
    server = Program(command, r"listening on (http://\S+)", env=environment(tmp_path, AWS_LAMBDA_LOG_LEVEL="TRACE"), cwd=tmp_path)
    try:
        signed = event(tmp_path, "approve", instance_id)
        status, answer = fetch(server.url + signed["rawPath"], signed["body"], signed["headers"])
        assert (status, json.loads(answer)["outcome"]) == (200, "accepted"), answer
        wait_for("all notices", lambda: len(Chat.posts) >= 4)
    finally:
        server.stop()
        chat.shutdown()
    types = []
    for path, headers, body in Chat.posts:
        headers = {name.lower(): value for name, value in headers.items()}
        types.append(Webhook(AUDIT_SECRET).verify(body, headers)["type"])
        assert path == "/audit"
    assert types == [f"peering.{news}" for news in ["discovered", "decided", "accepted", "activated"]]
    for secret in [CI_SECRET, SLACK_SECRET, AUDIT_SECRET, "accepter-secret", "/audit"]:
        assert secret not in "".join(server.output), "at the highest log level, nothing secret is in the log"
    # The file still has the record.
    tick = subprocess.run(
        [PEERGATE, "watch", "--once", "--store", str(tmp_path / "peergate.db")],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rounds=1 discovered=0 changed=0" in tick.stderr, tick.stderr


def request_peering(simulator):
    from test_alibaba_sdk import REQUESTER, Client, Config, create

    config = Config(
        access_key_id=REQUESTER[0],
        access_key_secret=REQUESTER[1],
        endpoint=simulator.url.removeprefix("http://"),
        protocol="http",
    )
    return create(Client(config)).instance_id


def test_boto3_finds_the_served_table(tmp_path):
    """`peergate table`, for functions that run under `cargo lambda watch`."""
    import boto3

    command = [PEERGATE, "table", "--listen", "127.0.0.1:0", "--store", str(tmp_path / "peergate.db"), "--name", "peergate-test"]
    keys = environment(tmp_path, AWS_ACCESS_KEY_ID="ours", AWS_SECRET_ACCESS_KEY="a secret/with+signs=")
    server = Program(command, r"listening on (http://\S+)", cwd=tmp_path, env=keys)

    def client_with(key, secret):
        aws = {"region_name": "eu-central-1", "aws_access_key_id": key, "aws_secret_access_key": secret}
        return boto3.client("dynamodb", endpoint_url=server.url, **aws)

    client = client_with("ours", "a secret/with+signs=")

    def described():
        try:
            return client.describe_table(TableName="peergate-test")["Table"]
        except client.exceptions.ResourceNotFoundException:
            return None

    try:
        assert wait_for("the table", described)["GlobalSecondaryIndexes"][0]["IndexName"] == "due"
        for key, secret, code in [("ours", "guessed", "InvalidSignatureException"), ("local", "local", "UnrecognizedClientException")]:
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                client_with(key, secret).describe_table(TableName="peergate-test")
            answer = refused.value.response
            assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, 403)
    finally:
        server.stop()


def test_simulator_requests_a_peering_on_demand(tmp_path):
    simulator = Program([PEERGATE, "simulate", "--request", "--well-known-keys"], r"listening on (http://\S+)")
    try:
        instance_id = wait_for(
            "the id", lambda: [line.split()[1] for line in simulator.output if line.startswith("requested ")]
        )[0]
        configuration(simulator, tmp_path)
        command = [PEERGATE, "serve", "--listen", "127.0.0.1:0", "--store", str(tmp_path / "peergate.db")]
        server = Program(command, r"listening on (http://\S+)", env=environment(tmp_path), cwd=tmp_path)
        try:
            signed = event(tmp_path, "dry-run", instance_id, "--provider", "slack")
            status, answer = fetch(server.url + signed["rawPath"], signed["body"], signed["headers"])
            assert status == 200 and "A dry run passed" in answer, answer
        finally:
            server.stop()
    finally:
        simulator.stop()


def test_missing_configuration_is_reported_in_words(tmp_path):
    done = subprocess.run(
        [PEERGATE, "event", "approve", "pcc-a"], env=environment(tmp_path), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("peergate: cannot read ") and "No such file" in done.stderr, done.stderr
