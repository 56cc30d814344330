# What peergate needs in an accepting account, and no more. Apply it once in each.
#
# Without `lambda_roles` it makes a RAM user: create its AccessKey in the console, and put it into the secrets. (Terraform
# would keep the AccessKey's secret in its state.) With them it makes a role that the functions assume without any key.

terraform {
  required_providers {
    alicloud = {
      source  = "aliyun/alicloud"
      version = ">= 1.252.0"
    }
  }
}

variable "resource_directory" {
  description = "If all requesters are in one Resource Directory: its id (rd-…). Requests of others cannot be accepted then"
  type        = string
  default     = null
}

variable "lambda_roles" {
  description = "Keyless: the ARNs of both functions' roles, as the stack's output FunctionRoles says"
  type        = list(string)
  default     = []
}

variable "issuer" {
  description = "Keyless: the issuer of your AWS account's identity tokens (https://….tokens.sts.global.api.aws)"
  type        = string
  default     = null
}

variable "fingerprints" {
  description = "Keyless: SHA-1 of the root certificates that the issuer's server may be signed with, at most 5"
  type        = list(string)
  default     = []
}

locals {
  keyless  = length(var.lambda_roles) > 0
  policies = var.resource_directory == null ? [alicloud_ram_policy.peergate] : [alicloud_ram_policy.peergate, alicloud_ram_policy.one_directory[0]]
}

resource "alicloud_ram_policy" "peergate" {
  policy_name     = "peergate"
  policy_document = file("${path.module}/policy.json")
}

resource "alicloud_ram_policy" "one_directory" {
  count           = var.resource_directory == null ? 0 : 1
  policy_name     = "peergate-one-directory"
  policy_document = templatefile("${path.module}/policy-one-directory.json", { resource_directory = var.resource_directory })
}

# With an AccessKey.

resource "alicloud_ram_user" "peergate" {
  count = local.keyless ? 0 : 1
  name  = "peergate"
}

resource "alicloud_ram_user_policy_attachment" "peergate" {
  count       = local.keyless ? 0 : length(local.policies)
  user_name   = alicloud_ram_user.peergate[0].name
  policy_name = local.policies[count.index].policy_name
  policy_type = "Custom"
}

# Keyless.

resource "alicloud_ims_oidc_provider" "aws" {
  count              = local.keyless ? 1 : 0
  oidc_provider_name = "aws"
  issuer_url         = var.issuer
  client_ids         = ["sts.aliyuncs.com"]
  fingerprints       = var.fingerprints
}

resource "alicloud_ram_role" "peergate" {
  count                = local.keyless ? 1 : 0
  role_name            = "peergate"
  max_session_duration = 3600
  assume_role_policy_document = jsonencode({
    Version = "1"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Federated = [alicloud_ims_oidc_provider.aws[0].arn] }
      Condition = {
        StringEquals = {
          "oidc:iss" = [var.issuer]
          "oidc:aud" = ["sts.aliyuncs.com"]
          "oidc:sub" = var.lambda_roles
        }
      }
    }]
  })
}

resource "alicloud_ram_role_policy_attachment" "peergate" {
  count       = local.keyless ? length(local.policies) : 0
  role_name   = alicloud_ram_role.peergate[0].role_name
  policy_name = local.policies[count.index].policy_name
  policy_type = "Custom"
}

output "role" {
  description = "For `role` in the target's `credentials`"
  value       = local.keyless ? alicloud_ram_role.peergate[0].arn : null
}

output "provider" {
  description = "For `provider` in the target's `credentials`"
  value       = local.keyless ? alicloud_ims_oidc_provider.aws[0].arn : null
}
