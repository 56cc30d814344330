"""The parts of Alibaba Cloud's Terraform provider that deploy/alicloud and docs/operate.md use: their schema, and an
invented account.

Attributes as of provider 1.289, without the deprecated ones.
Source: <https://github.com/aliyun/terraform-provider-alicloud/tree/v1.289.0/website/docs/r>
"""

import json

from tf import types
from tf.iface import Provider, Resource
from tf.runner import run_provider
from tf.schema import Attribute, Schema
from tf.types import Unknown

ACCOUNT = "2222222222222222"
TEXT, NUMBER, SET = types.String(), types.Number(), types.Set(types.String())
REQUIRED, OPTIONAL, EITHER, COMPUTED = {"required": True}, {"optional": True}, {"optional": True, "computed": True}, {"computed": True}
RESOURCES = {
    "ram_policy": {
        "policy_name": (TEXT, EITHER),
        "policy_document": (TEXT, EITHER),
        "description": (TEXT, OPTIONAL),
        "type": (TEXT, COMPUTED),
    },
    "ram_user": {"name": (TEXT, REQUIRED), "display_name": (TEXT, OPTIONAL), "comments": (TEXT, OPTIONAL)},
    "ram_user_policy_attachment": {name: (TEXT, REQUIRED) for name in ("user_name", "policy_name", "policy_type")},
    "ram_role": {
        "role_name": (TEXT, EITHER),
        "assume_role_policy_document": (TEXT, EITHER),
        "max_session_duration": (NUMBER, EITHER),
        "description": (TEXT, OPTIONAL),
        "arn": (TEXT, COMPUTED),
        "role_id": (TEXT, COMPUTED),
    },
    "ram_role_policy_attachment": {name: (TEXT, REQUIRED) for name in ("role_name", "policy_name", "policy_type")},
    "ims_oidc_provider": {
        "oidc_provider_name": (TEXT, REQUIRED),
        "issuer_url": (TEXT, REQUIRED),
        "client_ids": (SET, OPTIONAL),
        "fingerprints": (SET, OPTIONAL),
        "arn": (TEXT, COMPUTED),
    },
    "vpc_peer_connection": {
        **{name: (TEXT, REQUIRED) for name in ("vpc_id", "accepting_region_id", "accepting_vpc_id")},
        "accepting_ali_uid": (NUMBER, OPTIONAL),
        "bandwidth": (NUMBER, EITHER),
        **{name: (TEXT, EITHER) for name in ("peer_connection_name", "description", "resource_group_id", "status")},
        **{name: (types.Bool(), OPTIONAL) for name in ("dry_run", "force_delete")},
        "create_time": (TEXT, COMPUTED),
    },
    "route_entry": {
        "route_table_id": (TEXT, REQUIRED),
        **{name: (TEXT, OPTIONAL) for name in ("destination_cidrblock", "nexthop_type", "nexthop_id", "name", "description")},
    },
}
ARNS = {
    "ram_role": lambda made: f"acs:ram::{ACCOUNT}:role/{made['role_name']}",
    "ims_oidc_provider": lambda made: f"acs:ram::{ACCOUNT}:oidc-provider/{made['oidc_provider_name']}",
}


def resource(name, attributes):
    class Made(Resource):
        def __init__(self, provider):
            pass

        @classmethod
        def get_name(cls):
            return name

        @classmethod
        def get_schema(cls):
            listed = [Attribute(attribute, kind, **how) for attribute, (kind, how) in attributes.items()]
            return Schema(attributes=[Attribute("id", TEXT, computed=True), *listed])

        def validate(self, diags, type_name, config):
            super().validate(diags, type_name, config)
            for attribute, value in config.items():
                if attribute.endswith("_document") and isinstance(value, str):
                    json.loads(value)

        def create(self, ctx, planned):
            made = {**planned, "id": f"{name}-1"}
            if name in ARNS:
                made["arn"] = ARNS[name](made)
            return {attribute: None if value is Unknown else value for attribute, value in made.items()}

        def read(self, ctx, current):
            return current

        def update(self, ctx, current, planned):
            return planned

        def delete(self, ctx, current):
            return None

    return Made


class Alicloud(Provider):
    def get_model_prefix(self):
        return "alicloud_"

    def full_name(self):
        return "aliyun/alicloud"

    def get_provider_schema(self, diags):
        return Schema(attributes=[])

    def validate_config(self, diags, config):
        pass

    def configure_provider(self, diags, config):
        pass

    def get_data_sources(self):
        return []

    def get_functions(self):
        return []

    def get_resources(self):
        return [resource(name, attributes) for name, attributes in RESOURCES.items()]


if __name__ == "__main__":
    run_provider(Alicloud())
