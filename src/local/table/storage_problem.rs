//! What can be wrong with the file of the table. The engine passes on only `SQLite`'s texts.

use std::fmt;

/// A failure of the file that an operator has to fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StorageProblem {
    CannotOpen,
    Damaged,
    DiskFull,
    InputOutput,
    Locked,
    ReadOnly,
}

/// `SQLite`'s texts, and what each means.
///
/// Source: <https://www.sqlite.org/rescode.html>
const MESSAGES: [(&str, StorageProblem); 8] = [
    ("unable to open database file", StorageProblem::CannotOpen),
    ("unable to open database:", StorageProblem::CannotOpen),
    ("database disk image is malformed", StorageProblem::Damaged),
    ("not a valid SQLite database", StorageProblem::Damaged),
    ("database or disk is full", StorageProblem::DiskFull),
    ("disk I/O error", StorageProblem::InputOutput),
    ("database is locked", StorageProblem::Locked),
    ("attempt to write a readonly database", StorageProblem::ReadOnly),
];

impl StorageProblem {
    /// `None` if the text says something else.
    pub(super) fn from_message(message: &str) -> Option<Self> {
        MESSAGES.iter().find(|(part, _)| message.contains(part)).map(|(_, problem)| *problem)
    }

    /// The code of the error, as DynamoDB has codes.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::CannotOpen => "TableCannotBeOpened",
            Self::Damaged => "TableDamaged",
            Self::DiskFull => "TableDiskFull",
            Self::InputOutput => "TableDiskError",
            Self::Locked => "TableLocked",
            Self::ReadOnly => "TableReadOnly",
        }
    }
}

impl fmt::Display for StorageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CannotOpen => "SQLite cannot open it: check that its directory exists, and the owner and permissions of both",
            Self::Damaged => "it is damaged, or it is no table: restore a backup",
            Self::DiskFull => "the disk is full: free some space",
            Self::InputOutput => "the disk fails, or a quota or limit is reached: see the log of the system",
            Self::Locked => "another process has locked it for too long: end that process",
            Self::ReadOnly => "it is read-only: check the owner and permissions of it and of its directory, and how the disk is mounted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_sqlite_become_problems_with_a_code_and_words() {
        for (text, code, words) in [
            ("Internal error: unable to open database file: /x/y", "TableCannotBeOpened", "directory exists"),
            ("Internal error: database or disk is full", "TableDiskFull", "the disk is full"),
            ("storage: attempt to write a readonly database", "TableReadOnly", "read-only"),
            ("Internal error: disk I/O error", "TableDiskError", "quota"),
            ("Internal error: database is locked", "TableLocked", "another process"),
            ("Internal error: database disk image is malformed", "TableDamaged", "backup"),
            ("Database file is encrypted or not a valid SQLite database. If", "TableDamaged", "no table"),
        ] {
            let problem = StorageProblem::from_message(text).unwrap();
            assert_eq!(problem.code(), code);
            assert!(problem.to_string().contains(words), "{problem}");
        }
        assert_eq!(StorageProblem::from_message("Lock poisoned"), None);
    }
}
