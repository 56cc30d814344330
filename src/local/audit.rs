//! The audit commands: what the table has, what happened, and whether anybody edited it. They only read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::table::EmbeddedTable;
use super::{Error, count_of, installation};
use crate::approval::{ApprovalId, History};
use crate::chat::message::{self, Message};
use crate::chat::{CommandScope, Reply};
use crate::config::Environment;
use crate::document::{decode_text, nearest_name, repeated_keys};
use crate::peering::InstanceId;
use crate::store::{self, ScannedRecord, Store, Stored};
use crate::{aws, clock, http};

/// The table that has the records.
#[derive(Debug, Clone, clap::Args)]
pub struct RecordSource {
    /// The file of the table.
    #[arg(long, default_value = "peergate.db", conflicts_with = "aws")]
    pub store: PathBuf,
    /// Use the table in AWS that the environment names.
    #[arg(long)]
    pub aws: bool,
}

impl RecordSource {
    /// Opens another table, to read it: its name in AWS, or its file, which stays unchanged.
    pub(super) async fn open_named(&self, name: &str) -> Result<Store, Error> {
        Self { store: name.into(), aws: self.aws }.open_table(self.aws.then_some(name), EmbeddedTable::open_copy).await
    }

    pub(super) async fn open_store(&self) -> Result<Store, Error> {
        self.open_table(None, EmbeddedTable::open).await
    }

    async fn open_table(
        &self,
        name: Option<&str>,
        open_file: fn(&Path) -> Result<EmbeddedTable, Error>,
    ) -> Result<Store, Error> {
        let environment = self.environment_with(open_file).await?;
        let http = http::new_client()?;
        let sdk = aws::dynamodb_sdk_config(&environment.aws, &http);
        let endpoint = environment.aws.dynamodb_endpoint.as_ref();
        let table = name.map_or(environment.table, ToOwned::to_owned);
        // The retention does not matter: the commands rewrite only unfinished records.
        Ok(Store::new(&sdk, endpoint, http, table, jiff::SignedDuration::ZERO))
    }

    /// The environment with this table.
    pub(super) async fn environment_with_table(&self) -> Result<Environment, Error> {
        self.environment_with(EmbeddedTable::open).await
    }

    async fn environment_with(
        &self,
        open_file: fn(&Path) -> Result<EmbeddedTable, Error>,
    ) -> Result<Environment, Error> {
        let mut environment = self.environment()?;
        if !self.aws {
            check_table_file(&self.store)?;
            let path = self.store.clone();
            let table = spawn_blocking(move || open_file(&path)).await??;
            environment.aws = table.environment(&environment.aws);
        }
        Ok(environment)
    }

    pub(super) fn environment(&self) -> Result<Environment, Error> {
        Ok(if self.aws { Environment::from_process()? } else { installation::local_environment()? })
    }

    pub(super) async fn scan_records(&self) -> Result<Vec<ScannedRecord>, Error> {
        scan_all(&self.open_store().await?).await.map_err(|error| self.name_table(&error))
    }

    /// The error of the table, with its name and place.
    fn name_table(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let Ok(Environment { table, aws, .. }) = self.environment() else { return error.to_string().into() };
        let place = if self.aws { format!("AWS, region {}", aws.region) } else { self.store.display().to_string() };
        if error.to_string().contains("ResourceNotFoundException") {
            format!("there is no table {table} in {place}: PEERGATE_TABLE names the table").into()
        } else {
            format!("table {table} in {place}: {error}").into()
        }
    }
}

/// How a file of SQLite begins.
///
/// Source: <https://www.sqlite.org/fileformat.html>
const SQLITE_HEADER: &[u8] = b"SQLite format 3\0";

/// Checks that there is such a file. The embedded engine would make a table of any other file.
fn check_table_file(path: &Path) -> Result<(), Error> {
    let name = path.display();
    let Ok(metadata) = std::fs::metadata(path) else {
        return Err(format!("there is no table at {name}: name its file with --store, or use --aws").into());
    };
    if !metadata.is_file() {
        return Err(format!("{name} is not a file, so it has no table").into());
    }
    let mut start = vec![];
    let header = u64::try_from(SQLITE_HEADER.len()).unwrap_or_default();
    let file = File::open(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    file.take(header).read_to_end(&mut start).map_err(|error| format!("cannot read {name}: {error}"))?;
    if start == SQLITE_HEADER { Ok(()) } else { Err(format!("{name} has no table: it is not a file of SQLite").into()) }
}

/// Every record of a table, by id.
pub(super) async fn scan_all(store: &Store) -> Result<Vec<ScannedRecord>, store::Error> {
    let (mut records, mut next) = (vec![], None);
    loop {
        let page = store.scan_records(next).await?;
        records.extend(page.items);
        if page.next.is_none() {
            records.sort_by(|one, other| one.id.cmp(&other.id));
            return Ok(records);
        }
        next = page.next;
    }
}

/// The unfinished approvals; with `all`, also the finished ones. A record that cannot be read has a line with the reason.
pub async fn list_records(source: &RecordSource, all: bool) -> Result<String, Error> {
    let (mut approvals, mut unreadable) = (vec![], String::new());
    for scanned in source.scan_records().await? {
        match scanned.stored {
            Ok(stored) if all || !stored.approval.state().is_final() => approvals.push(stored.approval),
            Ok(_) => {}
            Err(error) => writeln!(unreadable, "{error}")?,
        }
    }
    approvals.sort_by_key(super::super::approval::Approval::since);
    let listed = if all {
        approvals.iter().map(|approval| message::summary_line(approval, clock::now()) + "\n").collect()
    } else {
        let list = Reply::List { approvals, more: false };
        render_text(&message::describe_reply(&list, CommandScope::Everything, clock::now()))
    };
    Ok(listed + &unreadable)
}

/// The record of a connection, with its history. `name` is `pcc-…` or `target/pcc-…`.
pub async fn show_records(source: &RecordSource, name: &str) -> Result<String, Error> {
    let stored = source.find_records(name).await?;
    Ok(stored
        .iter()
        .map(|stored| render_text(&message::record_with_history(&stored.approval, clock::now())))
        .collect::<Vec<_>>()
        .join("\n"))
}

impl RecordSource {
    /// The records with this name: `pcc-…` or `target/pcc-…`. There is at least one.
    pub(super) async fn find_records(&self, name: &str) -> Result<Vec<Stored>, Error> {
        let mut stored = vec![];
        let instance_id = name.rsplit_once('/').map_or(name, |(_, id)| id);
        let instance_id = InstanceId::parse(instance_id).map_err(|error| format!("{name:?} is {error}"))?;
        if let Some((target, _)) = name.split_once('/') {
            let id = ApprovalId { target: target.to_owned(), instance_id };
            let loaded = self.open_store().await?.load(&id).await;
            stored.extend(loaded.map_err(|error| self.name_table(&error))?);
        } else {
            for scanned in self.scan_records().await? {
                if scanned.id.split_once('/').is_some_and(|(_, id)| id == instance_id.as_str()) {
                    stored.push(scanned.stored?);
                }
            }
        }
        if stored.is_empty() {
            return Err(describe_unknown_record(self, name).await?.into());
        }
        Ok(stored)
    }
}

/// Names the record that is probably meant.
async fn describe_unknown_record(source: &RecordSource, name: &str) -> Result<String, Error> {
    let known: Vec<_> = source.scan_records().await?.into_iter().map(|scanned| scanned.id).collect();
    let short =
        |id: &str| if name.contains('/') { id.to_owned() } else { id.rsplit('/').next().unwrap_or(id).to_owned() };
    let names: Vec<_> = known.iter().map(|id| short(id)).collect();
    let problem = format!("there is no record of {name}");
    Ok(match nearest_name(name, names.iter().map(String::as_str)) {
        Some(meant) => format!("{problem}; did you mean {meant}?"),
        None => {
            format!("{problem} among {}; `peergate list --all` lists them", count_of(known.len(), "record", "records"))
        }
    })
}

/// An entry of a history, as a line of an export.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExportedEntry {
    /// `target/pcc-…`.
    id: String,
    /// The position of the entry in its history, from 0.
    number: usize,
    /// The stored JSON.
    #[serde(flatten)]
    entry: Value,
}

/// All entries since a time, one per line, the earliest first.
pub async fn export_history(source: &RecordSource, since: Option<Timestamp>) -> Result<String, Error> {
    let mut entries = vec![];
    for scanned in source.scan_records().await? {
        for (number, entry) in history_entries(&scanned.record).iter().enumerate() {
            let at = entry.get("at").and_then(Value::as_str).and_then(|at| at.parse().ok());
            let at: Timestamp = at.unwrap_or(Timestamp::UNIX_EPOCH);
            if since.is_none_or(|since| at >= since) {
                entries.push((at, ExportedEntry { id: scanned.id.clone(), number, entry: entry.clone() }));
            }
        }
    }
    entries.sort_by(|(at, one), (other_at, other)| (at, &one.id, one.number).cmp(&(other_at, &other.id, other.number)));
    let mut lines = String::new();
    for (_, entry) in entries {
        writeln!(lines, "{}", serde_json::to_string(&entry)?)?;
    }
    Ok(lines)
}

/// Checks that every record is unedited and follows from its history, and that each entry of an earlier export still
/// exists unchanged. Returns the text to print.
///
/// # Errors
/// When there are problems. The error has the whole text.
pub async fn verify_records(source: &RecordSource, against: Option<&Path>) -> Result<String, Error> {
    let exported = against.map(read_export).transpose()?;
    check_records(&source.scan_records().await?, exported.as_deref())
}

/// As [`verify_records`], for records that were read before.
pub(super) fn check_records(all: &[ScannedRecord], exported: Option<&[ExportedEntry]>) -> Result<String, Error> {
    let mut problems = vec![];
    let mut stored = BTreeMap::new();
    for scanned in all {
        problems.extend(find_problems(scanned).into_iter().map(|problem| format!("{}: {problem}", scanned.id)));
        for (number, entry) in history_entries(&scanned.record).iter().enumerate() {
            stored.insert((scanned.id.as_str(), number), entry);
        }
    }
    let mut unchanged = 0_usize;
    for ExportedEntry { id, number, entry } in exported.unwrap_or_default() {
        match stored.get(&(id.as_str(), *number)) {
            Some(stored) if *stored == entry => unchanged = unchanged.saturating_add(1),
            Some(_) => problems.push(format!("{id}: entry {number} differs from the export")),
            None => problems.push(format!("{id}: entry {number} is missing (removed, or past its retention)")),
        }
    }
    if exported.is_some() && unchanged == 0 {
        problems.push(
            "this table has no entry of the export: it is another table, or all entries were replaced".to_owned(),
        );
    }
    let records = count_of(all.len(), "record", "records");
    let without_digest: Vec<_> =
        all.iter().filter(|scanned| scanned.is_from_earlier_version()).map(|scanned| scanned.id.as_str()).collect();
    let without_digest = match without_digest.as_slice() {
        [] => String::new(),
        ids => format!("without a digest, because an earlier version wrote them: {}\n", ids.join(", ")),
    };
    if problems.is_empty() {
        let entries = count_of(stored.len(), "entry", "entries");
        let compared = exported.map(|_| format!(", {unchanged} as in the export")).unwrap_or_default();
        return Ok(format!("{records} with {entries}: all valid{compared}\n{without_digest}"));
    }
    let count = count_of(problems.len(), "problem", "problems");
    let text = format!("{count} in {records}:\n{}\n{without_digest}", problems.join("\n"));
    Err(text.trim_end().into())
}

/// The entries of an earlier export.
fn read_export(path: &Path) -> Result<Vec<ExportedEntry>, Error> {
    let name = path.display();
    let text = std::fs::read(path).map_err(|error| format!("cannot read the export {name}: {error}"))?;
    let text = decode_text(&text).map_err(|problem| format!("{name} is not an export: {problem}"))?;
    let mut entries = vec![];
    for (position, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entry = serde_json::from_str(line).map_err(|error| {
            let number = position.saturating_add(1);
            let kind = if error.is_data() { "an entry" } else { "JSON" };
            format!("{name} is not an export: line {number} is not {kind}")
        })?;
        entries.push(entry);
    }
    if entries.is_empty() {
        return Err(format!("{name}: the export has no entries, so there is nothing to compare with").into());
    }
    Ok(entries)
}

/// The problems of a record.
fn find_problems(scanned: &ScannedRecord) -> Vec<String> {
    let mut problems = scanned.item_problems();
    problems.extend(
        repeated_keys(scanned.record_json())
            .into_iter()
            .map(|repeated| format!("the key {:?} is repeated", repeated.key)),
    );
    if let Err(broken) = History::verify(&scanned.id, &scanned.record) {
        problems.push(broken.to_string());
    }
    if scanned.is_from_newer_version() {
        return problems;
    }
    match &scanned.stored {
        Err(error) => problems.push(error.to_string()),
        // A field that this version would not write is an edit.
        Ok(stored) if !stored.is_from_earlier_version() => {
            let ours = serde_json::to_value(&stored.approval).unwrap_or_default();
            problems.extend(
                find_differences(&ours, &scanned.record)
                    .into_iter()
                    .map(|path| format!("unknown or altered field {path}")),
            );
        }
        Ok(_) => {}
    }
    problems
}

/// The paths at which a stored record differs from what this version would write, apart from its schema.
fn find_differences(ours: &Value, stored: &Value) -> Vec<String> {
    fn compare_values(ours: &Value, stored: &Value, path: &str, found: &mut Vec<String>) {
        match (ours, stored) {
            (Value::Object(ours), Value::Object(stored)) => {
                for (key, value) in stored {
                    compare_values(ours.get(key).unwrap_or(&Value::Null), value, &format!("{path}/{key}"), found);
                }
            }
            (Value::Array(ours), Value::Array(stored)) if ours.len() == stored.len() => {
                for (position, (ours, stored)) in ours.iter().zip(stored).enumerate() {
                    compare_values(ours, stored, &format!("{path}/{position}"), found);
                }
            }
            (ours, stored) if ours == stored || path == "/schema" => {}
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = vec![];
    compare_values(ours, stored, "", &mut found);
    found
}

/// Parses a time, or a day, which stands for its beginning in UTC.
pub fn parse_since(text: &str) -> Result<Timestamp, String> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(day).ok_or_else(|| "expected e.g. 2026-11-22 or 2026-11-22T10:00:00Z".to_owned())
}

pub(super) fn history_entries(record: &Value) -> &[Value] {
    record.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn render_text(message: &Message) -> String {
    let facts = message.facts.iter().map(|fact| format!("  {}: {}", fact.label, fact.value));
    let rest =
        [&message.checks, &message.figure, &message.sentences].into_iter().flatten().map(|line| format!("  {line}"));
    let snippet = message.snippet.iter().cloned();
    let lines = std::iter::once(message.headline.clone()).chain(facts).chain(rest).chain(snippet);
    lines.collect::<Vec<_>>().join("\n") + "\n"
}
