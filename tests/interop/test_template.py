"""template.yaml: it is valid, and gives each function the permissions that it requires and no more."""

import json
import os
import re
import subprocess
import tomllib
import zipfile

import pytest
import yaml
from conftest import BIN, ROOT


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as {tag: value}."""


def short_form(loader, suffix, node):
    kinds = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    return {suffix: kinds.get(type(node), loader.construct_mapping)(node)}


Loader.add_multi_constructor("!", short_form)
TEMPLATE = yaml.load((ROOT / "template.yaml").read_text(), Loader)
RESOURCES = TEMPLATE["Resources"]


def statements(role):
    policies = [policy for policy in RESOURCES[role]["Properties"]["Policies"] if "If" not in policy]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def actions(statement):
    action = statement["Action"]
    return action if isinstance(action, list) else [action]


@pytest.mark.parametrize("tool", [["cfn-lint"], ["sam", "validate", "--lint", "--region", "eu-central-1", "--template"]])
def test_linters_find_no_problem(tool, tmp_path):
    command = [BIN / tool[0], *tool[1:], "template.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"SAM_CLI_TELEMETRY": "0", "PATH": str(BIN), "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("WebhookRole", {"dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"}),
        (
            "WatcherRole",
            {
                "dynamodb:BatchGetItem",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:DescribeStream",
                "dynamodb:GetRecords",
                "dynamodb:GetShardIterator",
                "dynamodb:ListStreams",
                "sqs:SendMessage",
            },
        ),
    ],
)
def test_each_role_allows_exactly_its_functions_calls(role, allowed):
    common = {"secretsmanager:GetSecretValue", "logs:CreateLogStream", "logs:PutLogEvents"}
    assert {action for statement in statements(role) for action in actions(statement)} == allowed | common
    for statement in statements(role):
        assert statement["Resource"] != "*" and "*" not in json.dumps(statement["Resource"]), statement
        assert not any("*" in action for action in actions(statement)), statement


def test_optional_permissions_are_granted_only_on_request():
    policies = {name: one for name, one in RESOURCES.items() if one["Type"] == "AWS::IAM::ManagedPolicy"}
    expected = {
        "SecretKeyPolicy": ("HasSecretKey", {"kms:Decrypt"}, {"Ref": "SecretKeyArn"}),
        "KeylessPolicy": ("IsKeyless", {"sts:GetWebIdentityToken"}, "*"),
    }
    assert set(policies) == set(expected)
    # The role itself must allow tracing. A policy that is attached later comes too late for Lambda.
    for role in ["WebhookRole", "WatcherRole"]:
        (traced,) = [policy["If"] for policy in RESOURCES[role]["Properties"]["Policies"] if "If" in policy]
        (statement,) = traced[1]["PolicyDocument"]["Statement"]
        assert (traced[0], traced[2]) == ("IsTraced", {"Ref": "AWS::NoValue"})
        assert (set(actions(statement)), statement["Resource"]) == ({"xray:PutTelemetryRecords", "xray:PutTraceSegments"}, "*")
    for name, (condition, allowed, resource) in expected.items():
        policy = policies[name]
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert (policy["Condition"], set(actions(statement)), statement["Resource"]) == (condition, allowed, resource)
        assert policy["Properties"]["Roles"] == [{"Ref": "WebhookRole"}, {"Ref": "WatcherRole"}]
    (keyless,) = policies["KeylessPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert keyless["Condition"] == {
        "Null": {"sts:IdentityTokenAudience": "false"},
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": ["sts.aliyuncs.com"]},
        "NumericLessThanEquals": {"sts:DurationSeconds": 300},
    }
    (decrypt,) = policies["SecretKeyPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert decrypt["Condition"] == {"StringEquals": {"kms:ViaService": {"Sub": "secretsmanager.${AWS::Region}.${AWS::URLSuffix}"}}}
    defaults = [TEMPLATE["Parameters"][name]["Default"] for name in ["Keyless", "Tracing", "SecretKeyArn", "PermissionsBoundaryArn"]]
    assert defaults == ["no", "no", "", ""]


def conditions(node):
    """Every condition of every statement below a node."""
    if isinstance(node, dict):
        if "Effect" in node and isinstance(node.get("Condition"), dict):
            yield node["Condition"]
        for child in node.values():
            yield from conditions(child)
    elif isinstance(node, list):
        for child in node:
            yield from conditions(child)


def trapped(condition):
    """Keys that ForAllValues checks without a condition that they are present: it is true for an absent key."""
    asked = {key for operator, keys in condition.items() if operator.startswith("ForAllValues:") for key in keys}
    return asked - {key for key, absent in condition.get("Null", {}).items() if absent == "false"}


def test_policy_condition_fails_without_its_key():
    policies = [TEMPLATE, *(json.loads(path.read_text()) for path in sorted((ROOT / "deploy").rglob("*.json")))]
    found = [condition for policy in policies for condition in conditions(policy)]
    assert len(found) >= 3 and [condition for condition in found if trapped(condition)] == []
    # Terraform's policies are not JSON.
    for path in (ROOT / "deploy").rglob("*.tf"):
        assert "ForAllValues" not in path.read_text(), path
    assert trapped({"ForAllValues:StringEquals": {"a": "b"}, "Null": {"a": "true"}}) == {"a"}
    assert trapped({"ForAllValues:StringEquals": {"a": "b"}, "Null": {"a": "false"}}) == set()


def test_webhook_concurrency_is_limited_on_request():
    parameter = TEMPLATE["Parameters"]["WebhookConcurrency"]
    assert parameter["Default"] == ""
    for text, fits in [("", True), ("1", True), ("1000", True), ("0", False), ("-1", False), ("1.5", False), ("x", False)]:
        assert bool(re.fullmatch(parameter["AllowedPattern"], text)) == fits, text
    assert TEMPLATE["Conditions"]["WebhookIsReserved"] == {"Not": [{"Equals": [{"Ref": "WebhookConcurrency"}, ""]}]}
    limited = {"If": ["WebhookIsReserved", {"Ref": "WebhookConcurrency"}, {"Ref": "AWS::NoValue"}]}
    assert RESOURCES["Webhook"]["Properties"]["ReservedConcurrentExecutions"] == limited


def test_every_role_takes_the_permissions_boundary():
    roles = [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::IAM::Role"]
    bounded = {"If": ["HasBoundary", {"Ref": "PermissionsBoundaryArn"}, {"Ref": "AWS::NoValue"}]}
    assert [role["PermissionsBoundary"] for role in roles] == [bounded, bounded]


def test_every_parameter_has_a_safe_default_and_a_description():
    for name, parameter in TEMPLATE["Parameters"].items():
        assert "Default" in parameter and parameter["Description"], name
        assert "Allowed" in json.dumps(parameter) or "MinValue" in parameter or name == "AlarmEmail", name


def test_each_function_runs_its_binary_in_its_own_role():
    cargo = (ROOT / "Cargo.toml").read_text()
    for name in ["Webhook", "Watcher"]:
        properties, build = RESOURCES[name]["Properties"], RESOURCES[name]["Metadata"]
        assert f'name = "{build["BuildProperties"]["Binary"]}"' in cargo
        assert build["BuildMethod"] == "rust-cargolambda" and "--locked" in build["BuildProperties"]["Flags"]
        assert properties["Role"] == {"GetAtt": f"{name}Role.Arn"}
    assert TEMPLATE["Globals"]["Function"]["Runtime"] == "provided.al2023"
    assert TEMPLATE["Parameters"]["Architecture"]["Default"] == "arm64"
    reserved = RESOURCES["Watcher"]["Properties"]["ReservedConcurrentExecutions"]
    assert reserved == {"If": ["WatcherIsReserved", 1, {"Ref": "AWS::NoValue"}]}
    assert TEMPLATE["Parameters"]["ReserveWatcher"]["Default"] == "yes"
    assert 'panic = "unwind"' in cargo, "the runtime reports panics only if they unwind"


def test_table_matches_the_code():
    properties = RESOURCES["Table"]["Properties"]
    code = (ROOT / "src" / "local" / "table.rs").read_text()
    made = set(re.findall(r'attribute\("(\w+)", ScalarAttributeType::(\w)\)', code))
    assert made == {(one["AttributeName"], one["AttributeType"]) for one in properties["AttributeDefinitions"]}
    (index,) = properties["GlobalSecondaryIndexes"]
    store = (ROOT / "src" / "store.rs").read_text()
    assert index["IndexName"] == re.search(r'pub const INDEX_NAME: &str = "(\w+)"', store)[1]
    held = json.loads(re.search(r"pub const INDEX_ATTRIBUTES: \[&str; \d\] = (\[.+?\]);", store)[1])
    assert index["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": held}
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["due", "due_at"]
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert properties["StreamSpecification"]


def test_table_is_protected_against_loss():
    table = RESOURCES["Table"]
    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    properties, parameters = table["Properties"], TEMPLATE["Parameters"]
    recovery = {"PointInTimeRecoveryEnabled": True, "RecoveryPeriodInDays": {"Ref": "RecoveryDays"}}
    assert properties["PointInTimeRecoverySpecification"] == recovery
    assert properties["DeletionProtectionEnabled"] == {"If": ["ProtectsTable", True, False]}
    assert (parameters["DeletionProtection"]["Default"], parameters["RecoveryDays"]["Default"]) == ("yes", 35)
    assert properties["BillingMode"] == "PAY_PER_REQUEST" and properties["SSESpecification"] == {"SSEEnabled": True}
    for log in ["WebhookLog", "WatcherLog"]:
        assert RESOURCES[log]["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_failed_ticks_do_not_pile_up_and_are_kept():
    watcher = RESOURCES["Watcher"]["Properties"]
    to_queue = {"OnFailure": {"Type": "SQS", "Destination": {"GetAtt": "Failures.Arn"}}}
    bounded = {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    assert watcher["EventInvokeConfig"] == bounded | {"DestinationConfig": to_queue}
    schedule, changes = (watcher["Events"][name]["Properties"] for name in ["Schedule", "Changes"])
    assert schedule == {"Schedule": "rate(1 minute)", "State": {"Ref": "ScheduleState"}, "RetryPolicy": bounded}
    assert (changes["MaximumRetryAttempts"], changes["MaximumRecordAgeInSeconds"]) == (2, 300)
    assert changes["DestinationConfig"] == to_queue
    (allowed,) = [one["Resource"] for one in statements("WatcherRole") if "sqs:SendMessage" in actions(one)]
    assert allowed == {"GetAtt": "Failures.Arn"}


def test_single_front_reaches_only_the_webhook():
    conditions = {name: one.get("Condition") for name, one in RESOURCES.items()}
    assert [name for name, one in conditions.items() if one == "HasFunctionUrl"] == [
        "WebhookUrl",
        "WebhookUrlPublicPermissions",
        "WebhookUrlInvocation",
    ]
    api = ["Api", "ApiIntegration", "ApiRoute", "ApiStage", "ApiPermission"]
    assert [name for name, one in conditions.items() if one == "HasHttpApi"] == api
    for name, one in RESOURCES.items():
        if one["Type"] == "AWS::Lambda::Permission":
            assert one["Properties"]["FunctionName"] == {"Ref": "Webhook"}, name
    assert RESOURCES["ApiIntegration"]["Properties"]["PayloadFormatVersion"] == "2.0", "the webhook reads no other"
    throttling = RESOURCES["ApiStage"]["Properties"]["DefaultRouteSettings"]
    assert set(throttling) == {"ThrottlingRateLimit", "ThrottlingBurstLimit"}


COUNTED = set(re.findall(r'pub const \w+: &str = "([A-Z]\w+)";', (ROOT / "src" / "metrics.rs").read_text()))


def metrics_of(alarm):
    """(namespace, name, function) of each metric that an alarm uses."""
    simple = [alarm] if "MetricName" in alarm else []
    for one in simple + [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]:
        (dimension,) = one["Dimensions"]
        assert dimension["Name"] == "FunctionName"
        yield one["Namespace"], one["MetricName"], dimension["Value"]["Ref"]


def test_every_alarm_watches_a_counted_metric():
    alarms = {name: one["Properties"] for name, one in RESOURCES.items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    looked_at = {name: {(space, metric) for space, metric, _ in metrics_of(alarm)} for name, alarm in alarms.items()}
    ours = lambda *names: {("peergate", name) for name in names}
    assert looked_at == {
        "WebhookFails": ours("ServerErrors") | {("AWS/Lambda", "Errors"), ("AWS/Lambda", "Throttles")},
        "SignaturesFail": ours("SignatureFailures"),
        "WatcherIsSilent": ours("Ticks"),
        "NoticesWait": ours("OldestUndeliveredNotice"),
        "ApprovalIsStuck": ours("StuckApprovals"),
        "PeeringHasDrifted": ours("Drifts"),
        "PeeringIsBypassed": ours("Bypasses"),
        "CredentialsFail": ours("CredentialsRefused"),
    }
    topic = [{"If": ["MakesTopic", {"Ref": "Alarms"}, {"Ref": "AlarmTopicArn"}]}]
    for name, alarm in alarms.items():
        # These are counted once. The metric does not say when it is over.
        is_counted_once = name in ("ApprovalIsStuck", "PeeringHasDrifted", "PeeringIsBypassed")
        assert alarm["AlarmActions"] == topic and alarm.get("OKActions", []) == ([] if is_counted_once else topic), name
        patience = {"NoticesWait": 13, "CredentialsFail": 3}.get(name, 1)
        assert (alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", 1)) == (patience, 1), name
        silence = "breaching" if name == "WatcherIsSilent" else "notBreaching"
        assert alarm["TreatMissingData"] == silence, name
        for space, metric, _ in metrics_of(alarm):
            assert space != "peergate" or metric in COUNTED, metric
    # For a period without data, CloudWatch would use the latest period that has some.
    assert alarms["WatcherIsSilent"]["Metrics"][0]["Expression"] == "FILL(ticks, 0)"


def test_dashboard_shows_every_metric():
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Sub"]
    widgets = json.loads(body)["widgets"]
    shown = set()
    for widget in widgets:
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], dict):
                searched = re.search(r'MetricName="(\w+)"', metric[0]["expression"])
                assert metric[0]["expression"].startswith("SEARCH('{peergate,FunctionName,")
                shown.add(searched[1])
            elif metric[0] == "peergate":
                shown.add(metric[1])
    assert shown == COUNTED
    assert set(re.findall(r"\$\{([\w:]+)\}", body)) == {"AWS::Region", "Webhook", "Watcher"}


def test_stream_event_with_work_passes_the_filter():
    (only,) = RESOURCES["Watcher"]["Properties"]["Events"]["Changes"]["Properties"]["FilterCriteria"]["Filters"]
    pattern = json.loads(only["Pattern"])
    (record,) = json.loads((ROOT / "events" / "stream.json").read_text())["Records"]
    # A finished record whose notifications were posted has no `work_at`.
    assert pattern == {"dynamodb": {"NewImage": {"work_at": {"N": [{"exists": True}]}}}}
    assert record["dynamodb"]["NewImage"]["work_at"]["N"].isdigit()


def test_alibaba_cloud_policy_allows_exactly_our_calls():
    policy = json.loads((ROOT / "deploy" / "alicloud" / "policy.json").read_text())
    called = set(re.findall(r'self\.call_(?:hedged|once)\("(\w+)"', (ROOT / "src" / "alicloud.rs").read_text()))
    # Only the simulator's tests use it: the other side requests a connection.
    called.remove("CreateVpcPeerConnection")
    (statement,) = policy["Statement"]
    assert set(statement["Action"]) == {f"vpc:{action}" for action in called}
    assert (policy["Version"], statement["Effect"]) == ("1", "Allow")
    (denied,) = json.loads((ROOT / "deploy" / "alicloud" / "policy-one-directory.json").read_text())["Statement"]
    assert (denied["Effect"], denied["Action"]) == ("Deny", ["vpc:AcceptVpcPeerConnection"])
    assert list(denied["Condition"]["StringNotEquals"]) == ["acs:TargetRDId"]


def test_nobody_else_policies_deny_what_peergate_may_change():
    read = lambda name: json.loads((ROOT / "deploy" / "alicloud" / name).read_text())["Statement"]
    (allowed,), (denied,), (control,) = read("policy.json"), read("policy-nobody-else.json"), read("control-policy.json")
    changes = {action for action in allowed["Action"] if "Accept" in action or "Reject" in action}
    for statement in (denied, control):
        assert (statement["Effect"], set(statement["Action"]), statement["Resource"]) == ("Deny", changes, "*")
    assert "Condition" not in denied
    exempt = control["Condition"]["StringNotLike"]["acs:PrincipalARN"]
    # The names that the Terraform module gives.
    module = (ROOT / "deploy" / "alicloud" / "main.tf").read_text()
    assert exempt == ["acs:ram:*:*:role/peergate", "acs:ram:*:*:user/peergate"]
    assert re.search(r'role_name +="? *"peergate"|role_name += "peergate"', module) and 'name  = "peergate"' in module


OPERATE, DEPLOY = ((ROOT / "docs" / name).read_text() for name in ["operate.md", "deploy.md"])


def test_guide_lists_exactly_the_alarms_and_metrics():
    alarms = {name for name, one in RESOURCES.items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    told = re.search(r"## Alarms(.*?)\n## ", OPERATE, re.S)[1]
    assert set(re.findall(r"^\| `(\w+)` \|", told, re.M)) == alarms
    counted = re.search(r"## Metrics(.*?)\n## ", OPERATE, re.S)[1]
    first = "\n".join(line.split("|")[1] for line in counted.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", first)) - {"Verdict", "Code", "Sender", "Key"} == COUNTED


def test_guide_names_only_existing_parameters_and_outputs():
    for name in re.findall(r"`(\w+)=(?:yes|no|HttpApi)`", OPERATE + DEPLOY):
        assert name in TEMPLATE["Parameters"], name
    outputs = re.findall(r"OutputKey==`(\w+)`|the stack's output `(\w+)`", OPERATE + DEPLOY)
    assert len(outputs) >= 4
    for name in filter(None, sum(outputs, ())):
        assert name in TEMPLATE["Outputs"], name


def test_the_guide_lists_every_parameter_with_its_default():
    table = re.search(r"### Parameters(.*?)\n## ", DEPLOY, re.S)[1]
    told = {}
    for names, defaults in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", table, re.M):
        told |= dict(zip(re.findall(r"`(\w+)`", names), defaults.replace("`", "").replace("empty", "").split(", "), strict=True))
    assert told == {name: str(one["Default"]) for name, one in TEMPLATE["Parameters"].items()}


def test_guides_log_queries_use_only_logged_fields():
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    queries = re.findall(r"```\n(.*?)```", OPERATE, re.S)
    assert len(queries) >= 6
    for query in queries:
        for field in re.findall(r"\b((?:peering|actor|http|alicloud|span)\.\w+)", query):
            name = field.removeprefix("span.")
            assert re.search(rf"\b{re.escape(name)}\b", sources), field
        for outcome in re.findall(r'outcome (?:=|in) \[?"(\w+)"(?:, "(\w+)")?', query):
            for word in filter(None, outcome):
                assert f'"{word}"' in sources, word


def test_workflow_runs_the_local_ci_script():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    jobs = workflow["jobs"]
    assert [step.get("run") for step in jobs["ci"]["steps"]][-1] == ".ci/run"
    assert (jobs["build"]["needs"], jobs["release"]["needs"]) == (["ci", "advisories"], "build")
    assert workflow["permissions"] == {"contents": "read"}
    ours = (ROOT / "Cargo.toml").read_text()
    least = tuple(map(int, re.search(r'rust-version = "([\d.]+)"', ours)[1].split(".")))
    assert tuple(map(int, workflow["env"]["TOOLCHAIN"].split("."))) >= least
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]
    assert toolchain["channel"] == workflow["env"]["TOOLCHAIN"], "CI and people build with the same toolchain"


def test_guides_costs_match_the_cost_script():
    printed = subprocess.run(["python3", ROOT / "deploy" / "cost.py"], capture_output=True, text=True, check=True).stdout
    assert printed in DEPLOY
    alarmed = sum(len(set(metrics_of(one["Properties"]))) for one in RESOURCES.values() if one["Type"] == "AWS::CloudWatch::Alarm")
    assert f"METRICS, ALARMS = 27, {alarmed}" in (ROOT / "deploy" / "cost.py").read_text()


def test_zip_is_reproducible(tmp_path):
    binary = tmp_path / "bootstrap"
    zips = []
    for number in range(2):
        binary.write_bytes(b"\x7fELF" + b"peergate" * 1000)
        os.utime(binary, (1e9 * (number + 1), 1e9))
        target = tmp_path / f"{number}.zip"
        subprocess.run(["python3", ROOT / "deploy" / "zip.py", binary, target], check=True)
        zips.append(target.read_bytes())
    assert zips[0] == zips[1]
    (entry,) = zipfile.ZipFile(tmp_path / "0.zip").infolist()
    assert (entry.filename, entry.external_attr >> 16 & 0o777) == ("bootstrap", 0o755)
