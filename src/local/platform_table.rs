//! What each chat platform can do, as the Markdown table of README.md. It is made from the list of platforms, so that it
//! stays true.

use crate::chat::platform::{CHANNEL_KINDS, Platform};
use crate::chat::{Capabilities, CommandScope};

/// The hours of a day.
const DAY_HOURS: i64 = 24;

/// A platform, and what its main channel can do.
struct Column {
    platform: Platform,
    can: Capabilities,
}

/// How a row fills the cell of a platform.
type FillCell = fn(&Column) -> String;

/// The table. Each platform is a column.
#[must_use]
pub fn platform_table() -> String {
    let columns: Vec<_> = Platform::ALL.iter().filter_map(|platform| Column::of(*platform)).collect();
    let rows: [(&str, FillCell); 9] = [
        ("", Column::heading),
        ("for", Column::readers),
        ("decide by", Column::ways_to_decide),
        ("one card for each request, kept up to date", Column::card),
        ("updates", Column::updates),
        ("a reason", Column::reason),
        ("the answer to a decision", Column::answer),
        ("mentions the approvers who are needed", Column::mentions),
        ("messages instead of cards, without buttons", Column::messages),
    ];
    let mut lines: Vec<_> = rows
        .into_iter()
        .map(|(label, cell)| {
            let cells: Vec<_> = columns.iter().map(cell).collect();
            format!("| {} | {} |", label, cells.join(" | ")).replacen("|  |", "| |", 1)
        })
        .collect();
    lines.insert(1, format!("|{}", "---|".repeat(columns.len().saturating_add(1))));
    lines.join("\n") + "\n"
}

impl Column {
    /// The main channel of an app has cards. Programs have a channel of their own.
    fn of(platform: Platform) -> Option<Self> {
        let of_app = CHANNEL_KINDS.iter().find(|kind| kind.app == Some(platform) && kind.can.can_edit);
        let for_programs = CHANNEL_KINDS.iter().find(|kind| kind.app.is_none() && kind.name == platform.name());
        of_app.or(for_programs).map(|kind| Self { platform, can: kind.can })
    }

    fn heading(&self) -> String {
        format!("[{}](docs/{}.md)", self.platform.title(), self.platform.name())
    }

    fn readers(&self) -> String {
        if self.can.is_for_people { "people" } else { "programs" }.to_owned()
    }

    fn ways_to_decide(&self) -> String {
        match (self.platform.max_binding_chars(), self.platform.command_scope()) {
            (0, _) => "signed JSON",
            (_, CommandScope::Everything) => "buttons, commands",
            (_, CommandScope::Questions) => "buttons; commands only ask",
        }
        .to_owned()
    }

    fn card(&self) -> String {
        match (self.can.can_edit, self.can.edit_window) {
            (true, Some(window)) => format!("yes; after {} days a new card follows", window.as_hours() / DAY_HOURS),
            (true, None) => "yes".to_owned(),
            (false, _) => "no".to_owned(),
        }
    }

    fn updates(&self) -> String {
        match (self.can.is_for_people, self.can.can_thread) {
            (true, true) => "in the thread of the card",
            (true, false) => "in the channel",
            (false, _) => "signed requests",
        }
        .to_owned()
    }

    fn reason(&self) -> String {
        match (self.can.is_for_people, self.can.can_open_modal) {
            (true, true) => "in a modal",
            (true, false) => "in a field on the card",
            (false, _) => "in the request",
        }
        .to_owned()
    }

    fn answer(&self) -> String {
        match (self.can.is_for_people, self.can.can_reply_privately) {
            (true, true) => "private",
            (true, false) => "in the channel",
            (false, _) => "JSON",
        }
        .to_owned()
    }

    fn mentions(&self) -> String {
        if self.can.can_mention { "yes" } else { "no" }.to_owned()
    }

    fn messages(&self) -> String {
        let of_app = CHANNEL_KINDS.iter().filter(|kind| kind.app == Some(self.platform) && !kind.can.can_edit);
        let kinds: Vec<_> = of_app.map(|kind| format!("`{}`", kind.name)).collect();
        if kinds.is_empty() { "–".to_owned() } else { kinds.join(", ") }
    }
}
