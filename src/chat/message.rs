//! Every sentence that a person reads in chat, free of any platform's markup: [`card`] shows a request as it is,
//! [`notice`] says what happened, [`answer`] answers who asked.
//!
//! The name of a connection and a reason are written by outsiders: they pass through [`plain`], and platforms show them
//! literally.

mod card;
mod notification;
mod reply;

use super::card_rate::CardDigest;
use crate::approval::{Approver, Decision, Verdict, failure_code};
use crate::peering::{Connection, Facts, Fingerprint, InstanceId, Problem, Side};

pub use card::request_card;
pub use notification::{describe_notification, follow_up, notification_name};
pub use reply::{card_moved, card_replaced, describe_reply, record_with_history, summary_line, wrong_tenant};

/// The longest text of an outsider that we show, in characters.
const MAX_SANITIZED_CHARS: usize = 200;
/// The most CIDR blocks, or overlaps, that a sentence names. A card's facts show all blocks.
const MAX_CIDRS: usize = 10;
/// The longest text of the CIDR blocks of both sides that a card shows whole. A platform with a lower limit has to split
/// it.
const MAX_RANGES_CHARS: usize = 6000;

/// What to say: the platform decides how it looks. Shown in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// One sentence, made of our own words and ids alone.
    pub headline: String,
    /// Label and value; values may come from outsiders.
    pub facts: Vec<MessageFact>,
    /// A checklist, with its marks.
    pub checks: Vec<String>,
    /// Lines in which columns matter.
    pub figure: Vec<String>,
    /// What to do, and what to know.
    pub sentences: Vec<String>,
    /// To be copied as it is.
    pub snippet: Option<String>,
    /// What it is called, and where it is.
    pub link: Option<Link>,
    /// What can be done about it.
    pub buttons: Option<Buttons>,
}

/// A fact of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFact {
    /// What the value is, e.g. `Bandwidth`.
    pub label: &'static str,
    /// One line. May hold untrusted text.
    pub value: String,
}

impl MessageFact {
    /// Makes a fact.
    pub fn new(label: &'static str, value: impl Into<String>) -> Self {
        Self { label, value: value.into() }
    }
}

/// A link of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The text of the link.
    pub label: &'static str,
    /// Where it leads.
    pub url: String,
}

/// The buttons of a message, and the facts that they decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buttons {
    /// The accepting account's name.
    pub target: String,
    /// The connection's id.
    pub instance_id: InstanceId,
    /// The fingerprint of the facts in the message.
    pub fingerprint: Fingerprint,
    /// The buttons, in order.
    pub shown: Vec<ShownButton>,
}

/// A button of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownButton {
    /// What a click does.
    pub button: Button,
    /// The text that the button carries; see [`bind_buttons`](super::binding::bind_buttons). Without one, no platform shows
    /// the button.
    pub binding: Option<String>,
}

impl From<Button> for ShownButton {
    /// A button that is not bound yet.
    fn from(button: Button) -> Self {
        Self { button, binding: None }
    }
}

/// A button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// Approve; asks for a reason first, if one is required.
    Approve {
        /// Whether it is.
        needs_reason: bool,
    },
    /// Reject; asks for a reason.
    Reject,
    /// Take an approval back.
    Withdraw,
    /// Tell me all.
    Details,
}

impl Button {
    /// What is on it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Approve { .. } => "Approve",
            Self::Reject => "Reject",
            Self::Withdraw => "Withdraw my approval",
            Self::Details => "Details",
        }
    }
}

/// What somebody is asked before a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonForm {
    /// At most 24 characters: Slack takes no more.
    pub title: &'static str,
    /// On the button.
    pub submit_label: &'static str,
    /// Of the field.
    pub label: &'static str,
    /// Whether it may be left empty.
    pub is_optional: bool,
}

/// What somebody is asked before a decision.
#[must_use]
pub fn reason_form(verdict: Verdict) -> ReasonForm {
    match verdict {
        Verdict::Approve => ReasonForm {
            title: "Approve VPC peering",
            submit_label: "Approve",
            label: "Why? The channel sees it",
            is_optional: false,
        },
        Verdict::Reject => ReasonForm {
            title: "Reject VPC peering",
            submit_label: "Reject",
            label: "Why? The channel sees it",
            is_optional: true,
        },
    }
}

/// What the window that asked is called once it tells the answer.
pub const MODAL_TITLE: &str = "VPC peering";
/// Closes a window.
pub const CLOSE_LABEL: &str = "Close";

fn with_headline(headline: impl Into<String>) -> Message {
    Message { headline: headline.into(), ..Message::default() }
}

/// How to use the slash command.
#[must_use]
pub fn command_usage() -> Message {
    Message {
        sentences: vec![
            "/peergate list [on TARGET]".into(),
            "/peergate status pcc-… [on TARGET]".into(),
            "/peergate approve pcc-… [on TARGET] [because REASON]".into(),
            "/peergate reject pcc-… [on TARGET] [because REASON]".into(),
            "/peergate withdraw pcc-… [on TARGET]".into(),
            "/peergate dry-run pcc-… [on TARGET]".into(),
        ],
        ..with_headline("peergate understands these commands")
    }
}

fn connection_facts(connection: &Connection, requester: Option<&str>) -> Vec<MessageFact> {
    let named = requester.map(|name| format!("{}, ", sanitize_text(name))).unwrap_or_default();
    let mut facts = vec![
        MessageFact::new("Requester", format!("{named}{}", describe_side(&connection.requester))),
        MessageFact::new("Accepting", describe_side(&connection.accepter)),
    ];
    let bandwidth = connection.bandwidth_mbps.map_or_else(|| "not limited".into(), |mbps| format!("{mbps} Mbit/s"));
    facts.push(MessageFact::new("Bandwidth", bandwidth));
    facts.extend(
        (!connection.link_type.is_empty()).then(|| MessageFact::new("Link", sanitize_text(&connection.link_type))),
    );
    facts.extend((!connection.name.is_empty()).then(|| MessageFact::new("Name", sanitize_text(&connection.name))));
    facts.extend(
        (!connection.description.is_empty())
            .then(|| MessageFact::new("Description", sanitize_text(&connection.description))),
    );
    facts
}

fn describe_side(side: &Side) -> String {
    let mut cidrs = String::new();
    for (position, cidr) in side.cidrs.iter().enumerate() {
        let cidr = cidr.to_string();
        if cidrs.len().saturating_add(cidr.len()) > MAX_RANGES_CHARS {
            let more = side.cidrs.len().saturating_sub(position);
            cidrs = format!("{cidrs} and {more} more");
            break;
        }
        if !cidrs.is_empty() {
            cidrs.push_str(", ");
        }
        cidrs.push_str(&cidr);
    }
    let cidrs = if cidrs.is_empty() { "ranges unknown".to_owned() } else { cidrs };
    format!("account {}, {} in {}, {cidrs}", side.account, sanitize_text(&side.vpc), sanitize_text(&side.region))
}

/// Whether a card shows every fact of its fingerprint completely and unchanged.
#[must_use]
pub fn can_show_all(facts: &Facts) -> bool {
    let sides = [&facts.requester, &facts.accepter];
    let ranges: usize = sides.iter().flat_map(|side| &side.cidrs).map(|cidr| cidr.to_string().len()).sum();
    let count: usize = sides.iter().map(|side| side.cidrs.len()).sum();
    let is_plain = |text: &String| text.is_empty() || sanitize_text(text) == *text;
    let texts = sides.iter().flat_map(|side| [&side.vpc, &side.region]).chain([&facts.link_type]);
    ranges.saturating_add(count.saturating_mul(2)) <= MAX_RANGES_CHARS && texts.into_iter().all(is_plain)
}

/// Requests of one account whose cards wait for their turn.
#[must_use]
pub fn describe_digest(digest: &CardDigest, name: Option<&str>) -> Message {
    let name = name.map(|name| format!("{}, ", sanitize_text(name))).unwrap_or_default();
    let (account, count) = (digest.account, digest.ids.len());
    Message {
        sentences: digest.ids.iter().map(ToString::to_string).collect(),
        ..with_headline(format!(
            "{name}account {account} requests many VPC peerings: {count} more cards follow, at most 20 an hour"
        ))
    }
}

fn decision_facts(label: &'static str, decision: Option<&Decision>) -> Vec<MessageFact> {
    let Some(decision) = decision else {
        return vec![MessageFact::new(label, "somebody outside peergate")];
    };
    let reason = decision.reason.as_deref().map(|reason| MessageFact::new("Reason", sanitize_text(reason)));
    [Some(MessageFact::new(label, describe_approver(&decision.by))), reason].into_iter().flatten().collect()
}

fn problem_facts(problem: &Problem) -> Vec<MessageFact> {
    let request_id = problem.request_id.as_ref().map(|id| MessageFact::new("Request id", sanitize_text(id)));
    [Some(MessageFact::new("Code", sanitize_text(&problem.code))), request_id].into_iter().flatten().collect()
}

fn describe_approver(approver: &Approver) -> String {
    match &approver.person {
        Some(person) => format!("{person} ({})", approver.principal),
        None if approver.principal.as_str().starts_with("peergate:") => "the rule, by itself".to_owned(),
        None => approver.principal.to_string(),
    }
}

fn list_approvers(approvers: &[Approver]) -> String {
    approvers.iter().map(describe_approver).collect::<Vec<_>>().join(", ")
}

/// The next step after an activation: without routes nothing flows.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/user-guide/vpc-peering-connection>
fn route_instructions(connection: &Connection) -> Vec<String> {
    let add = |here: &Side, there: &Side| {
        let ranges: Vec<_> = there.cidrs.iter().take(MAX_CIDRS).map(ToString::to_string).collect();
        let ranges = if ranges.is_empty() { "the other side's ranges".to_owned() } else { ranges.join(", ") };
        format!("in the route tables of {}: {ranges} → {}", sanitize_text(&here.vpc), connection.instance_id)
    };
    vec![
        format!("Next: add routes on both sides. Ours, {}.", add(&connection.accepter, &connection.requester)),
        format!("The requester's, {}.", add(&connection.requester, &connection.accepter)),
        "Then check security groups, network ACLs and database whitelists.".into(),
    ]
}

/// What to do about a code.
///
/// Source: <https://api.alibabacloud.com/document/VpcPeer/2022-01-01/errorCode>
pub(crate) fn advice_for_code(code: &str) -> &'static str {
    match code {
        failure_code::ACCEPTED_ELSEWHERE => {
            "Somebody accepted it outside peergate before the rejection. Delete the connection if it must not be."
        }
        failure_code::CHANGED_TOO_OFTEN => {
            "Its facts or its status changed again and again while it waited. Ask the requester why before anybody approves it."
        }
        failure_code::CALL_UNDONE => {
            "peergate carried the decision out again three times, and the connection still waits. Ask Alibaba Cloud's support, \
             then decide again."
        }
        failure_code::NEEDS_PEOPLE_AGAIN => {
            "The checks or the rules now require a new decision. An earlier call may have taken effect, so peergate \
             reads the connection again first."
        }
        "OperationFailed.CdtNotOpened" => {
            "Open Cloud Data Transfer (CDT) for the accepting account, then approve again."
        }
        "OperationFailed.CrossBorderCdtNotOpened" => {
            "Open cross-border Cloud Data Transfer for the accepting account, then approve again."
        }
        "ResourceNotFound.InstanceId" | "InvalidInstanceId.NotFound" => {
            "Alibaba Cloud does not find it for this account. If that stays so, the requester has deleted it, or the \
             credentials are of another account."
        }
        "SignatureDoesNotMatch" | "IncompleteSignature" => {
            "Check the AccessKey secret of the target in the secrets store."
        }
        "InvalidTimeStamp.Expired" | "InvalidTimestamp.Expired" | "IllegalTimestamp" => {
            "Check the clock of the machine that peergate runs on."
        }
        _ if code.starts_with("InvalidAccessKeyId") || code == "Forbidden.AccessKeyDisabled" => {
            "Check the AccessKey of the target in the secrets store: it is unknown or disabled."
        }
        "NoAccessKey" => "Store an AccessKey for the target.",
        "AssumeRole.NoPermission" => {
            "Check the role's trust policy, its external id, and that the AccessKey's user may call sts:AssumeRole."
        }
        "EntityNotExist.Role" => "Check the role of the target's `credentials`: it is not there.",
        _ if code.starts_with("NotUnderstood.") => {
            "peergate tries again. If the problem stays, give the request id to Alibaba Cloud and to peergate's operators."
        }
        "AwsIdentity.AccessDenied" => "Deploy with Keyless=yes, so that the functions may ask AWS for identity tokens.",
        "AwsIdentity.OutboundWebIdentityFederationDisabledException" => {
            "Let the AWS account issue identity tokens: aws iam enable-outbound-web-identity-federation."
        }
        "AuthenticationFail.NoPermission" => {
            "Check the OIDC provider of the target's `credentials`, and that the role trusts the functions' roles."
        }
        "AuthenticationFail.OIDCToken.AudienceNotMatch" => {
            "Add sts.aliyuncs.com to the client ids of the OIDC provider."
        }
        "AuthenticationFail.OIDCToken.PublicKeyFingerprintMismatch" => {
            "Add the fingerprint of the issuer's certificate authority to the OIDC provider."
        }
        _ if code.starts_with("AuthenticationFail") => "Check the OIDC provider in RAM: OPERATING.md, “Keyless”.",
        _ if code.starts_with("InvalidSecurityToken") => {
            "Store a new security token for the target, if it has one; a role's session is renewed by itself."
        }
        _ if code.starts_with("Forbidden") || code == "NoPermission" => {
            "Grant the target's RAM user vpc:AcceptVpcPeerConnection, vpc:RejectVpcPeerConnection, \
             vpc:GetVpcPeerConnectionAttribute and vpc:ListVpcPeerConnections."
        }
        _ if code.starts_with("IncorrectBusinessStatus") => "Settle the overdue payment, then approve again.",
        _ if code.starts_with("QuotaExceeded") => "Raise the quota in Quota Center, then approve again.",
        _ if code.starts_with("AwsIdentity.") => {
            "Look up the code in the documentation of AWS STS, GetWebIdentityToken."
        }
        _ if code.starts_with("Status.") || code == failure_code::OTHER_PEERINGS_UNKNOWN => {
            "peergate tries again by itself."
        }
        _ if ["Throttling", "Transport", "ServiceUnavailable", "InternalError", "LastTokenProcessing"]
            .iter()
            .any(|family| code.starts_with(family)) =>
        {
            "peergate tries again by itself."
        }
        _ => "Look the code up in Alibaba Cloud's error center, then decide again.",
    }
}

fn format_duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// How long, to the minute, for what waits.
fn format_wait(seconds: i64) -> String {
    let minutes = seconds.max(0) / 60;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// What outsiders wrote, in one line: no control, bidirectional or invisible characters, not too long, and never nothing.
#[must_use]
pub fn sanitize_text(text: &str) -> String {
    let invisible = |c: char| {
        matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{00AD}' | '\u{061C}' | '\u{180E}')
            || matches!(c, '\u{E0000}'..='\u{E007F}')
    };
    let visible: String =
        text.chars().filter(|c| !invisible(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(MAX_SANITIZED_CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    // Slack refuses a whole message for one empty text.
    if short.is_empty() { "–".to_owned() } else { short }
}
