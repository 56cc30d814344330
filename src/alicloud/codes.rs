//! What the vendor's codes mean. The vendor adds codes at any time, so a code is classified by its family. All other codes
//! are unknown.
//!
//! Source: <https://api.alibabacloud.com/document/VpcPeer/2022-01-01/errorCode>, and the codes that the vendor's Terraform
//! provider retries: <https://github.com/aliyun/terraform-provider-alicloud/blob/master/alicloud/errors.go>

use super::Class;
use crate::http;

/// Replaces a code that is not safe to show.
pub(super) const UNREADABLE_CODE: &str = "UnreadableCode";

/// A code that contains one of these is temporary, whatever prefix the product adds.
const TRANSIENT_WORDS: [&str; 4] = ["LastTokenProcessing", "Throttling", "Timeout", "Concurrent"];
/// Codes that begin like this are temporary.
const TRANSIENT_PREFIXES: [&str; 13] = [
    "ServiceUnavailable",
    "InternalError",
    "UnknownError",
    "SystemBusy",
    "SystemError",
    "OperationConflict",
    "TaskConflict",
    "Conflict",
    "SignatureNonceUsed",
    "TooManyRequests",
    // The gateway sends it while an API is being deployed. The operations that peergate calls exist.
    "InvalidApi.NotFound",
    // Both spellings exist.
    "OperationFailed.DistibuteLock",
    "OperationFailed.DistributeLock",
];
/// An operator has to fix the credentials or permissions.
const CREDENTIALS_PREFIXES: [&str; 14] = [
    "AuthenticationFail",
    "InvalidAccessKeyId",
    "InvalidAccessKeySecret",
    "MissingAccessKeyId",
    "InvalidSecurityToken",
    "MissingSecurityToken",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "Forbidden",
    // The VPC API spells it so.
    "Forbbiden",
    "NoPermission",
    "AssumeRole.NoPermission",
    "EntityNotExist",
    "Unauthorized",
];
/// The call can never work for this connection.
const PERMANENT_PREFIXES: [&str; 17] = [
    "IncorrectBusinessStatus",
    "QuotaExceeded",
    "NumberExceed",
    "IllegalParam",
    "InvalidParam",
    "Missing",
    "IdempotentParam",
    "InvalidAction",
    "InvalidVersion",
    "InvalidInstanceId",
    "Unsupported",
    "ResourceAlreadyExist",
    "ResourceNotFound",
    "OperationFailed.NotExist",
    "OperationDenied.CloudBox",
    "OperationDenied.OperateShareResource",
    "OperationDenied.RouteEntryExist",
];
/// An `OperationFailed.` code that ends with one of these is permanent, too.
const PERMANENT_SUFFIXES: [&str; 6] = [
    "NotOpened",
    "NotSupported",
    "NotAllowed",
    "ViolativeVpcPeer",
    "NotSupportLinkType",
    "CannotBeChangedInSameRegion",
];

/// What the caller must do after a refusal. Nearly every refusal has the HTTP status 400, so the status matters only if
/// the code is unknown.
pub(super) fn classify_refusal(code: &str, http_status: u16) -> Class {
    let begins = |families: &[&str]| families.iter().any(|family| code.starts_with(family));
    let is_permanent = |failure: &str| PERMANENT_SUFFIXES.iter().any(|suffix| failure.ends_with(suffix));
    match code {
        "DryRunOperation" => Class::DryRunPassed,
        "ResourceNotFound.InstanceId" | "ResourceNotFound.VpcPeer" | "InvalidInstanceId.NotFound" => Class::Missing,
        _ if TRANSIENT_WORDS.iter().any(|word| code.contains(word)) || begins(&TRANSIENT_PREFIXES) => Class::Retry,
        _ if is_status_error(code) => Class::ReadStatus,
        _ if begins(&CREDENTIALS_PREFIXES) || is_timestamp_error(code) => Class::Credentials,
        _ if begins(&PERMANENT_PREFIXES) => Class::Permanent,
        _ if code.strip_prefix("OperationFailed.").is_some_and(is_permanent) => Class::Permanent,
        _ if http_status >= 500 || http_status == 429 || http_status == 408 => Class::Retry,
        _ => Class::Unknown,
    }
}

/// Whether the code is about a status, e.g. `IncorrectStatus.VpcPeer`, `IncorrectVpcStatus` or `InvalidVBRStatus`. A
/// business status does not count, because only people change it.
fn is_status_error(code: &str) -> bool {
    let first = code.split('.').next().unwrap_or_default();
    let incorrect = first.starts_with("Incorrect") || first.starts_with("Invalid");
    incorrect && first.ends_with("Status") && !first.contains("Business")
}

/// Whether the vendor refused the call's timestamp. Both spellings exist.
pub(super) fn is_timestamp_error(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    code.starts_with("invalidtimestamp") || code.starts_with("illegaltimestamp")
}

/// Whether a call may have taken effect in spite of this refusal.
pub(super) fn may_have_taken_effect(code: &str, http_status: u16) -> bool {
    match classify_refusal(code, http_status) {
        Class::Retry => {
            let never_started = code.contains("Throttling")
                || ["ServiceUnavailable", "TooManyRequests"].iter().any(|family| code.starts_with(family));
            let may_have_started = ["LastTokenProcessing", "Timeout"].iter().any(|word| code.contains(word))
                // Nobody else uses our nonce, so an earlier copy of this call has arrived.
                || ["InternalError", "UnknownError", "SystemError", "SignatureNonceUsed"].iter().any(|family| code.starts_with(family));
            may_have_started || !never_started && (http_status >= 500 || http_status == 408)
        }
        // The code is unknown and the HTTP status does not report a refusal.
        Class::Unknown => !(400..500).contains(&http_status),
        Class::ReadStatus | Class::Missing | Class::Permanent | Class::Credentials | Class::DryRunPassed => false,
    }
}

/// A code that is safe in a log line and as the name of a metric. It cannot start another line, and cannot look like
/// success.
pub(super) fn sanitize_code(text: &str) -> String {
    http::log_safe_word(text).filter(|word| !is_success_code(word)).unwrap_or_else(|| UNREADABLE_CODE.to_owned())
}

/// Whether the code reports success.
pub(super) fn is_success_code(code: &str) -> bool {
    ["200", "OK", "Success"].iter().any(|success| code.trim().eq_ignore_ascii_case(success))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_maps_to_its_class() {
        let cases = [
            (
                Class::Retry,
                "ServiceUnavailable InternalError UnknownError SystemBusy Throttling Throttling.User Throttling.Api \
                 Rejected.Throttling Conflict.Operation LastTokenProcessing OperationFailed.LastTokenProcessing \
                 Some.LastTokenProcessing OperationConflict OperationConflict.X TaskConflict TaskConflict.X ConflictX \
                 SignatureNonceUsed InvalidApi.NotFound OperationDenied.ConcurrentOperation RequestTimeout \
                 OperationFailed.DistibuteLock OperationFailed.DistributeLock",
            ),
            (
                Class::ReadStatus,
                "IncorrectStatus IncorrectStatus.VpcPeer IncorrectStatus.Vpc IncorrectStatus.AcceptingVpc \
                 IncorrectVpcStatus IncorrectVSwitchStatus IncorrectInstanceStatus IncorrectRouteEntryStatus.X \
                 InvalidVBRStatus IncorrectStatus.RouteTableStatus",
            ),
            (Class::Missing, "ResourceNotFound.InstanceId InvalidInstanceId.NotFound"),
            (
                Class::Permanent,
                "IncorrectBusinessStatus.VpcPeer IncorrectBusinessStatus.AcceptVpcPeer IncorrectBusinessStatus \
                 OperationFailed.CdtNotOpened OperationFailed.CrossBorderCdtNotOpened \
                 OperationFailed.AcceptUserCdtNotOpened OperationFailed.NotExist.ResourceGroup \
                 OperationFailed.ViolativeVpcPeer OperationFailed.InterRegionLinkTypeNotSupported \
                 OperationFailed.RegionIdNotSupportLinkType OperationFailed.CrossBusinessNotAllowed \
                 OperationDenied.CloudBoxExistsInVpc QuotaExceeded.VpcPeerCountPerVpc IllegalParam.InstanceId \
                 MissingInstanceId MissingParameter IdempotentParameterMismatch InvalidAction.NotFound UnsupportedRegion",
            ),
            (
                Class::Credentials,
                "InvalidAccessKeyId.NotFound InvalidAccessKeyId.Inactive Forbidden.AccessKeyDisabled Forbidden.RAM \
                 Forbidden.NoPermission NoPermission SignatureDoesNotMatch IncompleteSignature InvalidTimeStamp.Expired \
                 InvalidTimestamp.Expired IllegalTimestamp InvalidSecurityToken.Expired MissingSecurityToken \
                 AuthenticationFail.OIDCToken.Expired EntityNotExist.Role MissingAccessKeyId",
            ),
            (Class::DryRunPassed, "DryRunOperation"),
            (Class::Unknown, "SomethingNew OperationFailed.SomethingNew OperationDenied.SomethingNew UnreadableCode"),
        ];
        for (class, codes) in cases {
            for code in codes.split_whitespace() {
                assert_eq!(classify_refusal(code, 400), class, "{code}");
            }
        }
        for transient in [500, 502, 503, 599, 429, 408] {
            assert_eq!(classify_refusal("SomethingNew", transient), Class::Retry);
        }
        for unknown in [200, 401, 403, 404, 409] {
            assert_eq!(classify_refusal("SomethingNew", unknown), Class::Unknown);
        }
    }

    #[test]
    fn definite_refusals_alone_rule_out_an_effect() {
        let ambiguous = [
            ("InternalError", 500),
            ("InternalError", 400),
            ("UnknownError", 400),
            ("SomethingNew", 500),
            ("SystemBusy", 502),
            ("LastTokenProcessing", 403),
            ("OperationFailed.LastTokenProcessing", 400),
            ("RequestTimeout", 408),
            ("SignatureNonceUsed", 400),
            ("SomethingNew", 200),
        ];
        for (code, http_status) in ambiguous {
            assert!(may_have_taken_effect(code, http_status), "{code} {http_status}");
        }
        let definite = [
            ("Throttling.User", 400),
            ("Throttling.User", 503),
            ("ServiceUnavailable", 503),
            ("SomethingNew", 400),
            ("SystemBusy", 400),
            ("IncorrectStatus.VpcPeer", 400),
            ("Conflict.Operation", 400),
            ("Forbidden.RAM", 403),
            ("OperationFailed.CdtNotOpened", 400),
            ("ResourceNotFound.InstanceId", 400),
            ("DryRunOperation", 400),
        ];
        for (code, http_status) in definite {
            assert!(!may_have_taken_effect(code, http_status), "{code} {http_status}");
        }
    }

    #[test]
    fn forged_code_becomes_the_unreadable_code() {
        for (text, expected) in [
            ("IncorrectStatus.VpcPeer", "IncorrectStatus.VpcPeer"),
            (" Throttling.User ", "Throttling.User"),
            ("A\n{\"outcome\":\"accepted\"}", UNREADABLE_CODE),
            ("IllegalParam.%s", UNREADABLE_CODE),
            ("<b>", UNREADABLE_CODE),
            ("\u{202e}", UNREADABLE_CODE),
            ("", UNREADABLE_CODE),
            ("OK", UNREADABLE_CODE),
            ("200", UNREADABLE_CODE),
        ] {
            assert_eq!(sanitize_code(text), expected, "{text:?}");
        }
        assert_eq!(sanitize_code(&"A".repeat(5000)).len(), 80);
    }
}
