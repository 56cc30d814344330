"""template.yaml: it is valid, and gives each function what it needs and no more."""

import json
import re
import subprocess

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
    policies = RESOURCES[role]["Properties"]["Policies"]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def actions(statement):
    action = statement["Action"]
    return action if isinstance(action, list) else [action]


@pytest.mark.parametrize("tool", [["cfn-lint"], ["sam", "validate", "--lint", "--region", "eu-central-1", "--template"]])
def test_the_tools_find_nothing(tool, tmp_path):
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
            },
        ),
    ],
)
def test_each_role_allows_exactly_what_its_function_calls(role, allowed):
    common = {"secretsmanager:GetSecretValue", "logs:CreateLogStream", "logs:PutLogEvents"}
    assert {action for statement in statements(role) for action in actions(statement)} == allowed | common
    for statement in statements(role):
        assert statement["Resource"] != "*" and "*" not in json.dumps(statement["Resource"]), statement
        assert not any("*" in action for action in actions(statement)), statement


def test_the_functions_are_the_binaries_and_alone_in_their_roles():
    cargo = (ROOT / "Cargo.toml").read_text()
    for name in ["Webhook", "Watcher"]:
        properties = RESOURCES[name]["Properties"]
        binary = re.fullmatch(r"target/lambda/(\w+)/bootstrap.zip", properties["CodeUri"]).group(1)
        assert f'name = "{binary}"' in cargo
        assert properties["Role"] == {"GetAtt": f"{name}Role.Arn"}
    assert TEMPLATE["Globals"]["Function"]["Runtime"] == "provided.al2023"
    assert TEMPLATE["Parameters"]["Architecture"]["Default"] == "arm64"
    reserved = RESOURCES["Watcher"]["Properties"]["ReservedConcurrentExecutions"]
    assert reserved == {"If": ["WatcherIsReserved", 1, {"Ref": "AWS::NoValue"}]}
    assert TEMPLATE["Parameters"]["ReserveWatcher"]["Default"] == "yes"
    assert 'panic = "unwind"' in cargo, "the runtime reports panics only if they unwind"


def test_the_table_is_the_one_that_the_code_makes():
    properties = RESOURCES["Table"]["Properties"]
    code = (ROOT / "src" / "local" / "table.rs").read_text()
    made = set(re.findall(r'attribute\("(\w+)", ScalarAttributeType::(\w)\)', code))
    assert made == {(one["AttributeName"], one["AttributeType"]) for one in properties["AttributeDefinitions"]}
    (index,) = properties["GlobalSecondaryIndexes"]
    store = (ROOT / "src" / "store.rs").read_text()
    assert index["IndexName"] == re.search(r'pub const INDEX: &str = "(\w+)"', store)[1]
    held = json.loads(re.search(r"pub const IN_INDEX: \[&str; \d\] = (\[.+?\]);", store)[1])
    assert index["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": held}
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["due", "due_at"]
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert properties["StreamSpecification"]


def test_a_stream_event_that_leaves_work_passes_the_filter():
    (only,) = RESOURCES["Watcher"]["Properties"]["Events"]["Changes"]["Properties"]["FilterCriteria"]["Filters"]
    pattern = json.loads(only["Pattern"])
    (record,) = json.loads((ROOT / "events" / "stream.json").read_text())["Records"]
    wanted = pattern["dynamodb"]["NewImage"]["due"]["S"]
    assert record["dynamodb"]["NewImage"]["due"]["S"] in wanted
