//! The results of checks in words, and overlapping CIDR blocks as a figure.

use ipnet::IpNet;

use super::sanitize_text;
use crate::preflight::{Check, CheckOutcome, CidrConflict, Finding, Objection};

/// The width of a bar, in characters.
const FIGURE_WIDTH: u32 = 32;
/// The most overlaps in a figure.
const MAX_DRAWN_OVERLAPS: usize = 3;

/// The checklist of a card: failed and unknown checks first, then all passed ones in one line.
pub(super) fn summarize_findings(findings: &[Finding]) -> Vec<String> {
    let (passed, others): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| finding.outcome == CheckOutcome::Passed);
    let (failed, unknown): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|finding| matches!(finding.outcome, CheckOutcome::Objection(_)));
    let mut lines: Vec<_> = failed.into_iter().chain(unknown).map(describe_finding).collect();
    if !passed.is_empty() {
        let names: Vec<_> = passed.iter().map(|finding| check_name(finding.check)).collect();
        let count = if passed.len() == 1 { "1 check".to_owned() } else { format!("{} checks", passed.len()) };
        lines.push(format!("✓ {count} passed: {}", names.join(", ")));
    }
    lines
}

fn check_name(check: Check) -> &'static str {
    match check {
        Check::Account => "accepting account",
        Check::Status => "status",
        Check::Expiry => "expiry",
        Check::BusinessStatus => "business status",
        Check::ManagedService => "managed service",
        Check::Cidrs => "CIDR overlap",
        Check::OtherPeerings => "other peerings",
        Check::CidrsInUse => "CIDR blocks in use",
        Check::DryRun => "dry run",
    }
}

/// One check in a line.
pub(super) fn describe_finding(finding: &Finding) -> String {
    match &finding.outcome {
        CheckOutcome::Passed => format!("✓ {}", describe_passed(finding.check)),
        CheckOutcome::Unknown(problem) => {
            let code = problem.as_ref().map(|problem| format!(": {}", sanitize_text(&problem.code)));
            format!("⚠ {}{}", describe_unknown(finding.check), code.unwrap_or_default())
        }
        CheckOutcome::Warning(conflicts) if finding.check == Check::CidrsInUse => {
            let conflicts: Vec<_> = conflicts.iter().map(describe_conflict).collect();
            format!("⚠ other peerings of the configured accounts use the same CIDR blocks: {}", conflicts.join("; "))
        }
        CheckOutcome::Warning(conflicts) => {
            let conflicts: Vec<_> = conflicts.iter().map(describe_conflict).collect();
            format!("⚠ other peerings of the accepting VPC use the requester's CIDR blocks: {}", conflicts.join("; "))
        }
        CheckOutcome::Objection(objection) => format!("✗ {}", explain_objection(objection)),
    }
}

fn describe_passed(check: Check) -> &'static str {
    match check {
        Check::Account => "the accepting account is ours",
        Check::Status => "it is pending at Alibaba Cloud",
        Check::Expiry => "it has not expired",
        Check::BusinessStatus => "its business status is normal",
        Check::ManagedService => "no managed service owns it",
        Check::Cidrs => "the CIDR blocks of both sides do not overlap",
        Check::CidrsInUse => "no other peering of the configured accounts uses the same CIDR blocks",
        Check::OtherPeerings => "no other peering of the accepting VPC uses the requester's CIDR blocks",
        Check::DryRun => "Alibaba Cloud would accept it (dry run)",
    }
}

fn describe_unknown(check: Check) -> &'static str {
    match check {
        Check::Account => "unknown whether the accepting account is ours",
        Check::Status => "unknown whether it is pending at Alibaba Cloud",
        Check::Expiry => "unknown whether it has expired",
        Check::BusinessStatus => "unknown business status",
        Check::ManagedService => "unknown whether a managed service owns it",
        Check::Cidrs => "unknown whether CIDR blocks overlap, because those of one side are missing",
        Check::CidrsInUse => "unknown whether other peerings of the configured accounts use the same CIDR blocks",
        Check::OtherPeerings => "unknown whether other peerings of the accepting VPC use the requester's CIDR blocks",
        Check::DryRun => "unknown whether Alibaba Cloud would accept it (dry run)",
    }
}

/// e.g. `10.1.0.0/16 contains 10.1.7.0/24, which pcc-b uses`.
fn describe_conflict(CidrConflict { requested, taken, instance_id }: &CidrConflict) -> String {
    match (requested.contains(taken), taken.contains(requested)) {
        (true, true) => format!("{instance_id} uses {requested} too"),
        (true, false) => format!("{requested} contains {taken}, which {instance_id} uses"),
        _ => format!("{requested} is inside {taken}, which {instance_id} uses"),
    }
}

/// Why a check failed, as the end of a sentence.
pub(super) fn explain_objection(objection: &Objection) -> String {
    match objection {
        Objection::NotOurs => "its accepting account is not the account of the target".into(),
        Objection::Status(status) => {
            format!("it is {}, not pending", sanitize_text(&status.to_string()))
        }
        Objection::Expired => "it has expired".into(),
        Objection::BusinessStatus(status) => format!("its business status is {}", sanitize_text(&status.to_string())),
        Objection::ManagedService(service) => format!("the managed service {} owns it", sanitize_text(service)),
        Objection::Overlap(_) => "CIDR blocks of both sides overlap, so routes between them cannot work".into(),
        Objection::DryRun(problem) => {
            format!("Alibaba Cloud would not accept it (dry run): {}", sanitize_text(&problem.code))
        }
    }
}

/// Draws overlapping CIDR blocks. One of them always contains the other.
pub(super) fn draw_overlaps(findings: &[Finding]) -> Vec<String> {
    let overlaps = findings.iter().filter_map(|finding| {
        let CheckOutcome::Objection(Objection::Overlap(pairs)) = &finding.outcome else { return None };
        Some(pairs)
    });
    overlaps.flatten().take(MAX_DRAWN_OVERLAPS).flat_map(|(theirs, ours)| draw_overlap(theirs, ours)).collect()
}

fn draw_overlap(theirs: &IpNet, ours: &IpNet) -> Vec<String> {
    let (outer, inner) = if theirs.contains(ours) { (theirs, ours) } else { (ours, theirs) };
    let wide = theirs.to_string().len().max(ours.to_string().len());
    let line = |label: &str, cidr: &IpNet| {
        let BarSegment { first, width } = bar_segment(outer, cidr);
        let bar: String =
            (0..FIGURE_WIDTH).map(|cell| if (first..first + width).contains(&cell) { '█' } else { '·' }).collect();
        format!("{label:<9} {:<wide$} {bar}", cidr.to_string())
    };
    let relation = match (outer == inner, outer == theirs) {
        (true, _) => format!("both sides use {outer}"),
        (false, true) => format!("the requester's {outer} contains our {inner}"),
        (false, false) => format!("our {outer} contains the requester's {inner}"),
    };
    vec![relation, line("requester", theirs), line("ours", ours)]
}

/// The cells of a bar that a CIDR block fills.
struct BarSegment {
    first: u32,
    /// At least one.
    width: u32,
}

/// The cells that `inner` fills in a bar of `outer`, which contains it.
fn bar_segment(outer: &IpNet, inner: &IpNet) -> BarSegment {
    let bits = u32::from(inner.prefix_len().saturating_sub(outer.prefix_len()));
    let width_bits = FIGURE_WIDTH.trailing_zeros();
    let number = |cidr: &IpNet| match cidr {
        IpNet::V4(cidr) => u128::from(cidr.network().to_bits()) << 96,
        IpNet::V6(cidr) => cidr.network().to_bits(),
    };
    // The start of `inner`, in 32nds of `outer`.
    let offset = number(inner) ^ number(outer);
    let first = offset.checked_shl(outer.prefix_len().into()).unwrap_or(0) >> (128 - width_bits);
    let first = u32::try_from(first).unwrap_or(0);
    BarSegment { first, width: FIGURE_WIDTH.checked_shr(bits).unwrap_or(0).max(1) }
}
