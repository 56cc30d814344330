"""Both functions under cargo-lambda's runtime, with moto for AWS and the simulator for Alibaba Cloud."""

import json
import os
import re
import socket
import subprocess
import urllib.request
from contextlib import contextmanager

import boto3
import pytest
from conftest import AUDIT_SECRET, BIN, CI_SECRET, PATIENCE_S, PEERGATE, ROOT, SLACK_SECRET
from conftest import configuration, environment, event, fetch, wait_for
from playground import playground
from test_oracles import request_peering

AWS = {"region_name": "eu-central-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Functions:
    """Both functions in `cargo lambda watch`."""

    def __init__(self, directory, port):
        self.url = f"http://127.0.0.1:{port}"
        self.directory = directory
        self.port = port

    def http(self, path, body=None, headers=None):
        return fetch(f"{self.url}/lambda-url/webhook{path}", body, headers)

    def invoke(self, name, payload):
        """Runs `cargo lambda invoke`, as a person would."""
        file = self.directory / "event.json"
        file.write_text(payload if isinstance(payload, str) else json.dumps(payload))
        command = [BIN / "cargo-lambda", "lambda", "invoke", "-A", "127.0.0.1", "-P", str(self.port), name]
        done = subprocess.run(
            [*command, "--data-file", file], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr + (self.directory / "watch.log").read_text()
        return json.loads(done.stdout)


@contextmanager
def watched(directory, moto, **more):
    """The functions with the configuration in `directory` and a new table."""
    boto3.client("dynamodb", endpoint_url=moto.url, **AWS).create_table(TableName=directory.name, **table())
    port = free_port()
    log = open(directory / "watch.log", "w")
    process = subprocess.Popen(
        [BIN / "cargo-lambda", "lambda", "watch", "-A", "127.0.0.1", "-P", str(port), "--features", "local", "--ignore-changes"],
        cwd=ROOT,
        env=environment(
            directory,
            AWS_REGION="eu-central-1",
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_ENDPOINT_URL=moto.url,
            PEERGATE_TABLE=directory.name,
            AWS_LAMBDA_LOG_LEVEL="TRACE",
            AWS_LAMBDA_LOG_FORMAT="JSON",
            PATH=f"{BIN}:{os.environ['PATH']}",
            **more,
        ),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def listening():
        assert process.poll() is None, (directory / "watch.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for("cargo lambda watch", listening)
        yield Functions(directory, port)
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.fixture
def functions(simulator, moto, tmp_path):
    secrets = configuration(simulator, tmp_path)
    name = f"peergate-{tmp_path.name}"
    boto3.client("secretsmanager", endpoint_url=moto.url, **AWS).create_secret(
        Name=name, SecretString=json.dumps(secrets)
    )
    with watched(tmp_path, moto, PEERGATE_SECRETS=name) as functions:
        yield functions


def table():
    """The table, as template.yaml defines it."""
    from test_template import TEMPLATE

    properties = TEMPLATE["Resources"]["Table"]["Properties"]
    wanted = ["BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes"]
    return {name: properties[name] for name in wanted}


def test_both_functions_carry_out_an_approval(functions, simulator):
    instance_id = request_peering(simulator)
    status, body = functions.http("/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"}), body

    signed = event(functions.directory, "approve", instance_id)
    answer = functions.invoke("webhook", signed)
    assert answer["statusCode"] == 200, answer
    assert json.loads(answer["body"])["outcome"] == "accepted"

    again = functions.http(signed["rawPath"], signed["body"], signed["headers"])
    assert (again[0], json.loads(again[1])["outcome"]) == (200, "repeated")

    slash = event(functions.directory, "status", instance_id, "--provider", "slack", "--actor", "U061F7AUR")
    told = functions.invoke("webhook", slash)
    assert told["statusCode"] == 200 and "activating" in told["body"], told

    assert functions.invoke("watcher", (ROOT / "events" / "schedule.json").read_text()) is None
    status, body = functions.http(*status_request(functions, instance_id))
    assert json.loads(body)["approval"]["state"] == "activated", body

    log = (functions.directory / "watch.log").read_text()
    lines = [json.loads(line, object_pairs_hook=unique) for line in log.splitlines() if line.startswith("{")]
    metrics = [line for line in lines if "_aws" in line]
    lines = [line for line in lines if "_aws" not in line]
    check_metrics(metrics)
    for line in lines:
        if line.get("outcome") in {"accepted", "advanced", "called", "ticked"}:
            assert line["span"]["request_id"] and line["span"]["trace_id"].startswith("Root="), line
    called = [line for line in lines if line.get("outcome") == "called"]
    assert {line["alicloud.action"] for line in called} >= {"AcceptVpcPeerConnection", "GetVpcPeerConnectionAttribute"}
    assert all(line["alicloud.request_id"] for line in called)
    assert "prod" in {line.get("target") for line in lines}
    outcomes = {line.get("outcome") for line in lines}
    assert {"accepted", "repeated", "advanced", "ticked"} <= outcomes, log
    assert all("timestamp" in line and "level" in line for line in lines)
    for secret in [CI_SECRET, SLACK_SECRET, AUDIT_SECRET, "accepter-secret", signed["headers"]["webhook-signature"]]:
        assert secret not in log, "at the highest log level, nothing secret is in the log"


def check_metrics(documents):
    """As CloudWatch reads them.

    Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
    """
    seen = {}
    for document in documents:
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        (dimensions,) = directive["Dimensions"]
        assert directive["Namespace"] == "peergate" and dimensions[0] == "FunctionName" and document["request_id"]
        where = tuple(document[name] for name in dimensions)
        for metric in directive["Metrics"]:
            value = document[metric["Name"]]
            seen.setdefault((metric["Name"], *where), []).append(value)
    assert seen["Decisions", "webhook", "approve"] == [1]
    assert seen["Accepts", "webhook"] == seen["Activations", "watcher"] == seen["Ticks", "watcher"] == [1]
    assert seen["ColdStarts", "webhook"] == seen["ColdStarts", "watcher"] == [1]
    ((took,),) = seen["TimeToActivated", "watcher"]
    assert 0 < took < 600
    assert ("CredentialsRefused", "webhook") not in seen


def unique(pairs):
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"a field twice: {names}"
    return dict(pairs)


def status_request(functions, instance_id):
    signed = event(functions.directory, "status", instance_id)
    return signed["rawPath"], signed["body"], signed["headers"]


def test_every_event_is_answered(functions):
    expected = {
        "healthz.json": 200,
        "payload-1.0.json": 400,
        # Their signatures are stale.
        "slack-click.json": 401,
        "slack-command.json": 401,
        "slack-ssl-check.json": 200,
        "webhook-approve.json": 401,
        "webhook-reject.json": 401,
    }
    watcher = {"schedule.json", "stream.json", "doctor.json"}
    assert {path.name for path in (ROOT / "events").glob("*.json")} == set(expected) | watcher
    for name, status in expected.items():
        answer = functions.invoke("webhook", (ROOT / "events" / name).read_text())
        assert answer["statusCode"] == status, f"{name}: {answer}"
    for name in watcher - {"doctor.json"}:
        assert functions.invoke("watcher", (ROOT / "events" / name).read_text()) is None
    report = functions.invoke("watcher", (ROOT / "events" / "doctor.json").read_text())
    found = {check["what"]: check["found"] for check in report["checks"]}
    assert (report["well"], found["channel audit"]) == (False, "problem"), "nobody listens there"
    well = ["secrets", "clock", "table, query", "target prod, credentials", "target prod, vpc:AcceptVpcPeerConnection (dry run)"]
    assert [found[what] for what in well] == ["fine"] * len(well), found


class PlaygroundCalls:
    """The calls that the playground's page makes."""

    def __init__(self, url):
        self.base, self.token = re.match(r"(http://[^/]+/)(\w+)", url).groups()

    def call(self, path, value=None):
        headers = {"x-playground-token": self.token, "content-type": "application/json"}
        body = None if value is None else json.dumps(value)
        status, text = fetch(f"{self.base}api/{path}", body, headers)
        assert status == 200, text
        return json.loads(text)

    def events(self, kind):
        """What the page was told so far. The stream never ends, so it is read up to the present state."""
        request = urllib.request.Request(f"{self.base}api/events", headers={"x-playground-token": self.token})
        found, current, text = [], None, ""
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as lines:
            for line in lines:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    current = value
                if name == "data":
                    found.append((current, json.loads(value)))
                if not name and current == "state":
                    break
        return [data for name, data in found if name == kind]


def test_event_of_the_playground_is_taken(moto, tmp_path):
    with playground() as program:
        page = PlaygroundCalls(program.url)
        page.call("act", page.call("stories")[0]["steps"][0]["action"])
        wait_for("a card", lambda: page.events("state")[-1]["platforms"][0]["messages"])
        page.call("act", {"do": "click", "by": "alice", "app": "slack", "button": "Approve"})
        (click,) = wait_for("the click", lambda: [it for it in page.events("http") if it["event"]])
        exported = page.call("export")
        (tmp_path / "peergate.toml").write_text(exported["config"])
        (tmp_path / "peergate.secrets.json").write_text(json.dumps(exported["secrets"]))
        with watched(tmp_path, moto) as functions:
            # It starts the function. Only then is the click signed.
            assert functions.invoke("webhook", (ROOT / "events" / "healthz.json").read_text())["statusCode"] == 200
            event = page.call("copy", {"number": click["number"], "form": "event"})["text"]
            assert functions.invoke("webhook", event)["statusCode"] == 200
            assert functions.invoke("webhook", event.replace("U061F7AUR", "U0BOB"))["statusCode"] == 401
    log = [json.loads(line) for line in (tmp_path / "watch.log").read_text().splitlines() if line.startswith("{")]
    (answered,) = [line for line in log if line.get("verb") == "approve"]
    # The new table knows no card.
    assert (answered["actor.id"], answered["outcome"]) == ("slack:T0001/U061F7AUR", "old-card")


def test_doctor_checks_the_aws_resources(simulator, moto, tmp_path):
    secrets = configuration(simulator, tmp_path)
    client = lambda name: boto3.client(name, endpoint_url=moto.url, **AWS)
    client("secretsmanager").create_secret(Name=tmp_path.name, SecretString=json.dumps(secrets))
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    client("dynamodb").create_table(TableName=tmp_path.name, StreamSpecification=stream, **table())
    ttl = {"AttributeName": "ttl", "Enabled": True}
    client("dynamodb").update_time_to_live(TableName=tmp_path.name, TimeToLiveSpecification=ttl)
    client("events").put_rule(Name=tmp_path.name, ScheduleExpression="rate(1 minute)", State="ENABLED")

    def doctor(rule, **more):
        keys = {"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        names = {"AWS_ENDPOINT_URL": moto.url, "PEERGATE_TABLE": tmp_path.name, "PEERGATE_SECRETS": tmp_path.name}
        wired = environment(tmp_path, **(keys | names | more))
        command = [PEERGATE, "doctor", "--json", "--rule", rule]
        done = subprocess.run(command, env=wired, capture_output=True, text=True, timeout=PATIENCE_S)
        report = json.loads(done.stdout)
        assert (done.returncode == 0) == report["well"], done.stderr
        return {check["what"]: (check["found"], check["detail"]) for check in report["checks"]}

    well = doctor(tmp_path.name)
    assert well["schedule"] == ("fine", "rate(1 minute)")
    assert well["table, stream"] == ("fine", "enabled") and well["table, TTL"] == ("fine", "on `ttl`")
    assert well["secrets"] == ("fine", "stored 0 days ago")
    assert {found for what, (found, _) in well.items() if not what.startswith("channel ")} == {"fine"}, well
    client("events").disable_rule(Name=tmp_path.name)
    disabled = "disabled, so the watcher finds no requests, follows no connections and posts nothing"
    assert doctor(tmp_path.name)["schedule"] == ("problem", disabled)
    assert doctor("other")["schedule"] == ("problem", "cannot describe other: ResourceNotFoundException")
    gone = doctor(tmp_path.name, PEERGATE_TABLE="other")
    assert gone["table"] == ("problem", "cannot describe other: ResourceNotFoundException")

    made = table()
    (index,) = made["GlobalSecondaryIndexes"]
    indexed = lambda **difference: {"GlobalSecondaryIndexes": [index | difference]}
    other_key = [{"AttributeName": "due", "KeyType": "HASH"}]
    amiss = [
        ("table, index", "there is no index `due`", indexed(IndexName="other")),
        ("table, index", "the keys of `due` are not `due` and `due_at`", indexed(KeySchema=other_key)),
        (
            "table, index",
            "`due` does not hold the attributes that it needs",
            indexed(Projection={"ProjectionType": "KEYS_ONLY"}),
        ),
        ("table", "the key of {name} is not `id`", {"KeySchema": other_key}),
    ]
    for number, (what, told, difference) in enumerate(amiss):
        other, name = made | difference, f"{tmp_path.name}-{number}"
        keys = {key["AttributeName"] for it in [other, *other["GlobalSecondaryIndexes"]] for key in it["KeySchema"]}
        other["AttributeDefinitions"] = [it for it in made["AttributeDefinitions"] if it["AttributeName"] in keys]
        client("dynamodb").create_table(TableName=name, **other)
        assert doctor(tmp_path.name, PEERGATE_TABLE=name)[what] == ("problem", told.format(name=name))
