# What peergate requires in an accepting account, and no more. Apply it once in each account.
#
# With `lambda_roles`, it makes a role that the functions assume without any key. With `assumed_by`, it makes a role that
# a user of another account assumes. Without either, it makes a RAM user: create its AccessKey in the console, and store
# it in the secrets. (Terraform would keep the AccessKey's secret in its state.)

terraform {
  required_providers {
    alicloud = {
      source  = "aliyun/alicloud"
      version = ">= 1.252.0"
    }
  }
}

variable "resource_directory" {
  description = "If all requesters are in one Resource Directory: its id (rd-…). Then RAM denies accepting requests of others"
  type        = string
  default     = null
}

variable "read_vpcs" {
  description = "For `read_vpcs` in the target: whether peergate may read this account's VPCs and route tables"
  type        = bool
  default     = false
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

variable "assumed_by" {
  description = "For one AccessKey that serves many accounts: the ARN of its RAM user (acs:ram::…:user/…)"
  type        = string
  default     = null
}

variable "external_id" {
  description = "The external id that assumed_by must send to assume the role: `external_id` in the target's `credentials`"
  type        = string
  default     = null
}

locals {
  keyless = length(var.lambda_roles) > 0
  role    = local.keyless || var.assumed_by != null
  policies = concat(
    [alicloud_ram_policy.peergate.policy_name],
    alicloud_ram_policy.one_directory[*].policy_name,
    alicloud_ram_policy.read_vpcs[*].policy_name,
  )
}

resource "alicloud_ram_policy" "peergate" {
  policy_name     = "peergate"
  policy_document = file("${path.module}/policy.json")
  lifecycle {
    precondition {
      condition     = !local.keyless || var.assumed_by == null
      error_message = "The role is assumed by lambda_roles or by assumed_by, not by both."
    }
    precondition {
      condition     = !local.keyless || var.issuer != null
      error_message = "With lambda_roles, the issuer of their tokens is needed."
    }
    precondition {
      condition     = var.external_id == null || var.assumed_by != null
      error_message = "An external_id is for assumed_by, who has to say it."
    }
  }
}

resource "alicloud_ram_policy" "one_directory" {
  count           = var.resource_directory == null ? 0 : 1
  policy_name     = "peergate-one-directory"
  policy_document = templatefile("${path.module}/policy-one-directory.json", { resource_directory = var.resource_directory })
}

resource "alicloud_ram_policy" "read_vpcs" {
  count           = var.read_vpcs ? 1 : 0
  policy_name     = "peergate-read-vpcs"
  policy_document = file("${path.module}/policy-read-vpcs.json")
}

# With an AccessKey of its own.

resource "alicloud_ram_user" "peergate" {
  count = local.role ? 0 : 1
  name  = "peergate"
}

resource "alicloud_ram_user_policy_attachment" "peergate" {
  count       = local.role ? 0 : length(local.policies)
  user_name   = alicloud_ram_user.peergate[0].name
  policy_name = local.policies[count.index]
  policy_type = "Custom"
}

# With a role.

resource "alicloud_ims_oidc_provider" "aws" {
  count              = local.keyless ? 1 : 0
  oidc_provider_name = "aws"
  issuer_url         = var.issuer
  client_ids         = ["sts.aliyuncs.com"]
  fingerprints       = var.fingerprints
}

resource "alicloud_ram_role" "peergate" {
  count                = local.role ? 1 : 0
  role_name            = "peergate"
  max_session_duration = 3600
  assume_role_policy_document = local.keyless ? jsonencode({
    Version = "1"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Federated = alicloud_ims_oidc_provider.aws[*].arn }
      Condition = {
        StringEquals = {
          "oidc:iss" = [var.issuer]
          "oidc:aud" = ["sts.aliyuncs.com"]
          "oidc:sub" = var.lambda_roles
        }
      }
    }]
    }) : jsonencode({
    Version = "1"
    Statement = [merge(
      { Effect = "Allow", Action = "sts:AssumeRole", Principal = { RAM = [var.assumed_by] } },
      { for id in var.external_id[*] : "Condition" => { StringEquals = { "sts:ExternalId" = [id] } } },
    )]
  })
}

resource "alicloud_ram_role_policy_attachment" "peergate" {
  count       = local.role ? length(local.policies) : 0
  role_name   = alicloud_ram_role.peergate[0].role_name
  policy_name = local.policies[count.index]
  policy_type = "Custom"
}

output "role" {
  description = "For `role` in the target's `credentials`"
  value       = one(alicloud_ram_role.peergate[*].arn)
}

output "provider" {
  description = "For `provider` in the target's `credentials`"
  value       = one(alicloud_ims_oidc_provider.aws[*].arn)
}
