//! What to do about an error code of Alibaba Cloud, of AWS, or of our own.

use crate::approval::failure_code;

/// What to do about a connection that somebody accepted outside peergate.
pub(super) const CHECK_BYPASS: &str = "If the connection must not exist, an operator must delete it.";
/// How to prevent accepts and rejections outside peergate.
pub(super) const PREVENT_BYPASS: &str = "A RAM policy can prevent this: docs/deploy.md, “Nobody else accepts”.";

/// The advice for some codes.
struct Advice {
    codes: Codes,
    text: &'static str,
}

enum Codes {
    /// Each of these codes.
    Of(&'static [&'static str]),
    /// Every code that starts with one of these texts.
    Starting(&'static [&'static str]),
}

impl Advice {
    const fn of(codes: &'static [&'static str], text: &'static str) -> Self {
        Self { codes: Codes::Of(codes), text }
    }

    const fn starting(prefixes: &'static [&'static str], text: &'static str) -> Self {
        Self { codes: Codes::Starting(prefixes), text }
    }

    fn is_for(&self, code: &str) -> bool {
        match self.codes {
            Codes::Of(codes) => codes.contains(&code),
            Codes::Starting(prefixes) => prefixes.iter().any(|prefix| code.starts_with(prefix)),
        }
    }
}

const GRANT_PERMISSIONS: &str = "Grant the target's RAM user or role vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection, \
     vpc:GetVpcPeerConnectionAttribute and vpc:ListVpcPeerConnections.";
const CHECK_ACCESS_KEY: &str = "Check the AccessKey of the target in the secrets store: it is unknown or disabled.";
const TRIES_AGAIN: &str = "peergate tries again automatically.";

/// The first entry for a code counts.
///
/// Source: <https://api.alibabacloud.com/document/VpcPeer/2022-01-01/errorCode>
const ADVICE: &[Advice] = &[
    Advice::of(
        &[failure_code::ACCEPTED_ELSEWHERE],
        "Somebody accepted it outside peergate before the rejection. If it must not exist, delete the connection. A RAM policy \
         can prevent this: docs/deploy.md, “Nobody else accepts”.",
    ),
    Advice::of(
        &[failure_code::CHANGED_TOO_OFTEN],
        "Its facts or its status changed again and again while it was pending. Ask the requester why before anybody approves it.",
    ),
    Advice::of(
        &[failure_code::CALL_UNDONE],
        "peergate carried out the decision three times, but the connection is still pending. Ask Alibaba Cloud support, then \
         decide again.",
    ),
    Advice::of(
        &[failure_code::NEEDS_PEOPLE_AGAIN],
        "The checks or the rules now require a new decision. An earlier call may have taken effect, so peergate first reads \
         the connection again.",
    ),
    Advice::of(
        &["OperationFailed.CdtNotOpened"],
        "Activate Cloud Data Transfer (CDT) for the accepting account, then approve again.",
    ),
    Advice::of(
        &["OperationFailed.CrossBorderCdtNotOpened"],
        "Activate cross-border Cloud Data Transfer (CDT) for the accepting account, then approve again.",
    ),
    Advice::of(
        &["ResourceNotFound.InstanceId", "InvalidInstanceId.NotFound"],
        "Alibaba Cloud does not find it in this account. If this stays so, either the requester has deleted it, or the \
         credentials belong to another account.",
    ),
    Advice::of(
        &["SignatureDoesNotMatch", "IncompleteSignature"],
        "Check the AccessKey secret of the target in the secrets store.",
    ),
    Advice::of(
        &["InvalidTimeStamp.Expired", "InvalidTimestamp.Expired", "IllegalTimestamp"],
        "Check the clock of the machine that peergate runs on.",
    ),
    Advice::starting(&["InvalidAccessKeyId"], CHECK_ACCESS_KEY),
    Advice::of(&["Forbidden.AccessKeyDisabled"], CHECK_ACCESS_KEY),
    Advice::of(&["NoAccessKey"], "Store an AccessKey for the target."),
    Advice::of(
        &["AssumeRole.NoPermission"],
        "Check the role's trust policy and its external id, and that the AccessKey's user may call sts:AssumeRole.",
    ),
    Advice::of(&["EntityNotExist.Role"], "Check the role in the target's `credentials`: it does not exist."),
    Advice::starting(
        &["NotUnderstood."],
        "peergate tries again automatically. If the problem stays, give the request id to Alibaba Cloud support and to \
         peergate's operators.",
    ),
    Advice::of(
        &["AwsIdentity.AccessDenied"],
        "Deploy with Keyless=yes, so that the functions may ask AWS for identity tokens.",
    ),
    Advice::of(
        &["AwsIdentity.OutboundWebIdentityFederationDisabledException"],
        "Let the AWS account issue identity tokens: aws iam enable-outbound-web-identity-federation.",
    ),
    Advice::of(
        &["AuthenticationFail.NoPermission"],
        "Check the OIDC provider in the target's `credentials`, and that the role trusts the functions' roles.",
    ),
    Advice::of(
        &["AuthenticationFail.OIDCToken.AudienceNotMatch"],
        "Add sts.aliyuncs.com to the client ids of the OIDC provider.",
    ),
    Advice::of(
        &["AuthenticationFail.OIDCToken.PublicKeyFingerprintMismatch"],
        "Add the fingerprint of the issuer's certificate authority to the OIDC provider.",
    ),
    Advice::starting(
        &["AuthenticationFail"],
        "Check the OIDC provider in RAM: docs/deploy.md, “Without an AccessKey”.",
    ),
    Advice::starting(
        &["InvalidSecurityToken"],
        "If the target has a security token, store a new one. peergate renews a role's session automatically.",
    ),
    Advice::starting(&["Forbidden"], GRANT_PERMISSIONS),
    Advice::of(&["NoPermission"], GRANT_PERMISSIONS),
    Advice::starting(&["IncorrectBusinessStatus"], "Settle the overdue payment, then approve again."),
    Advice::starting(&["QuotaExceeded"], "Raise the quota in Quota Center, then approve again."),
    Advice::starting(&["AwsIdentity."], "Look the code up in the documentation of AWS STS, GetWebIdentityToken."),
    Advice::of(&[failure_code::OTHER_PEERINGS_UNKNOWN], TRIES_AGAIN),
    Advice::starting(
        &["Status.", "Throttling", "Transport", "ServiceUnavailable", "InternalError", "LastTokenProcessing"],
        TRIES_AGAIN,
    ),
];

/// What to do about an error code.
pub(crate) fn advice_for_code(code: &str) -> &'static str {
    let known = ADVICE.iter().find(|advice| advice.is_for(code));
    known.map_or("Look the code up in Alibaba Cloud's error center, then decide again.", |advice| advice.text)
}
