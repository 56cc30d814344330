//! `peergate inventory` and `peergate adopt`: every peering of the configured accounts, and those that nobody approved here.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::audit::RecordSource;
use super::{Error, count_of};
use crate::accept::{self, Inventory, InventoryScope};
use crate::app::App;
use crate::approval::{ApprovalId, InventoryLine, InventoryOrigin, InventoryRole};
use crate::chat::MAX_REASON_CHARS;
use crate::chat::message::{describe_age, describe_origin, sanitize_text};
use crate::clock;
use crate::peering::InstanceId;

/// How long the command reads.
const TIMEOUT: Duration = Duration::from_hours(1);
/// The longest name of an operator, in characters.
const MAX_NAME_CHARS: usize = 100;

/// What to list.
#[derive(Debug, clap::Args)]
pub struct InventoryArgs {
    /// Only this account, by its name in the configuration.
    #[arg(long)]
    target: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: InventoryFormat,
    /// Fail if a peering is active and nobody approved it here.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    source: RecordSource,
}

/// How the inventory is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InventoryFormat {
    /// For people.
    Table,
    /// One line for each peering, after a header.
    Csv,
    /// An array of objects.
    Json,
}

/// The connection to take over.
#[derive(Debug, clap::Args)]
pub struct AdoptArgs {
    /// The id of the connection: pcc-… or TARGET/pcc-….
    id: String,
    /// Why it may stay.
    #[arg(long)]
    reason: String,
    /// Who takes it over.
    #[arg(long)]
    by: String,
    #[command(flatten)]
    source: RecordSource,
}

/// The inventory as text, and why the command fails.
#[derive(Debug)]
pub struct InventoryReport {
    /// What to print.
    pub text: String,
    /// `None` if all is well.
    pub failure: Option<String>,
}

/// Lists every peering of the configured accounts.
///
/// # Errors
/// When the configuration or the table cannot be read.
pub async fn report_inventory(args: &InventoryArgs) -> Result<InventoryReport, Error> {
    let app = args.source.open_app().await?;
    if let Some(target) = args.target.as_ref().filter(|target| !app.config.targets.contains_key(*target)) {
        return Err(format!("no target is named {target}").into());
    }
    let until = Instant::now() + TIMEOUT;
    let scope = InventoryScope { target: args.target.as_deref(), until, for_people: false };
    let Inventory { lines, gaps } = accept::list_inventory(&app, scope).await?;
    let now = clock::now();
    let text = match args.format {
        InventoryFormat::Table => to_table(&lines, now),
        InventoryFormat::Csv => to_csv(&lines, now),
        InventoryFormat::Json => format!("{}\n", serde_json::to_string_pretty(&lines)?),
    };
    let violations = lines.iter().filter(|line| line.origin == InventoryOrigin::NeverApproved).count();
    let failure = if !gaps.is_empty() {
        Some(format!("the inventory has gaps: {}", gaps.join("; ")))
    } else if args.check && violations > 0 {
        Some(format!(
            "{} never approved here: delete them, or take them over with `peergate adopt ID --by NAME --reason …`",
            count_of(violations, "active peering was", "active peerings were")
        ))
    } else {
        None
    };
    Ok(InventoryReport { text, failure })
}

const COLUMNS: [&str; 13] = [
    "connection",
    "role",
    "status",
    "from",
    "to",
    "age",
    "origin",
    "approved by",
    "approved at",
    "rule",
    "changed",
    "drift",
    "routes",
];

/// The cells of a line, in the order of [`COLUMNS`]. Text of others is sanitized.
fn cells(line: &InventoryLine, now: Timestamp) -> [String; 13] {
    let role = match line.role {
        InventoryRole::Accepting => "accepting",
        InventoryRole::Requesting => "requesting",
    };
    let routes = match line.routes_complete {
        Some(true) => "complete",
        Some(false) => "incomplete",
        None => "",
    };
    let day = |at: Option<jiff::Timestamp>| at.map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
    [
        format!("{}/{}", line.target, line.instance_id),
        role.to_owned(),
        sanitize_text(&line.status.to_string()),
        format!("{} {}", line.requester_account, sanitize_text(&line.requester_vpc)),
        format!("{} {}", line.accepting_account, sanitize_text(&line.accepting_vpc)),
        describe_age(line, now).unwrap_or_default(),
        describe_origin(line.origin).to_owned(),
        line.approved_by.iter().map(|by| sanitize_text(by)).collect::<Vec<_>>().join(" and "),
        day(line.approved_at),
        line.rule.as_deref().map(sanitize_text).unwrap_or_default(),
        day(line.changed_at),
        line.drift.join(", "),
        routes.to_owned(),
    ]
}

/// The header, and a row for each line.
fn rows(lines: &[InventoryLine], now: Timestamp) -> impl Iterator<Item = [String; 13]> {
    std::iter::once(COLUMNS.map(str::to_owned)).chain(lines.iter().map(move |line| cells(line, now)))
}

fn to_table(lines: &[InventoryLine], now: Timestamp) -> String {
    let rows: Vec<_> = rows(lines, now).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
    let mut text = String::new();
    for row in &rows {
        let padded = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or_default();
            format!("{cell:width$}")
        });
        let _ = writeln!(text, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// Source: <https://www.rfc-editor.org/rfc/rfc4180>. A cell that a spreadsheet would compute gets a quote before it.
fn to_csv(lines: &[InventoryLine], now: Timestamp) -> String {
    let quoted = |cell: &String| {
        let guard = if cell.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
        format!("\"{guard}{}\"", cell.replace('"', "\"\""))
    };
    rows(lines, now).map(|cells| cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n").collect()
}

/// Takes over an active connection that nobody approved here.
///
/// # Errors
/// As [`accept::adopt_connection`], and when the arguments or the configuration are wrong.
pub async fn adopt_named(args: &AdoptArgs) -> Result<String, Error> {
    if args.reason.trim().is_empty() || args.reason.chars().count() > MAX_REASON_CHARS {
        return Err(format!("give a reason of at most {MAX_REASON_CHARS} characters").into());
    }
    if args.by.trim().is_empty() || args.by.chars().count() > MAX_NAME_CHARS {
        return Err(format!("give a name of at most {MAX_NAME_CHARS} characters with --by").into());
    }
    let app = args.source.open_app().await?;
    let (named, instance_id) = match args.id.split_once('/') {
        Some((target, id)) => (Some(target), id),
        None => (None, args.id.as_str()),
    };
    let Some((target, _)) = app.config.find_target(named) else {
        return Err("name the account: TARGET/pcc-…".into());
    };
    let id = ApprovalId { target: target.to_owned(), instance_id: InstanceId::parse(instance_id)? };
    let adopted = accept::adopt_connection(&app, &id, args.by.trim(), args.reason.trim()).await;
    adopted.map_err(|error| format!("cannot adopt {id}: {error}"))?;
    Ok(format!("adopted {id}: what it is now counts as approved\n"))
}

impl RecordSource {
    /// The app that uses this table.
    async fn open_app(&self) -> Result<App, Error> {
        let environment = self.environment_with_table().await?;
        let config = crate::config::Config::load(&environment.config)?;
        Ok(App::new(&environment, config)?)
    }
}
