//! Detects a list that repeats itself.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::alicloud::Page;

/// A list with this many empty pages in a row never ends.
const MAX_EMPTY_PAGES: u32 = 2;

/// Hashes of what the pages have shown. A list can have 100,000 connections, so that their ids would take too much
/// memory.
#[derive(Default)]
pub(super) struct RepeatDetector {
    connections: HashSet<u64>,
    tokens: HashSet<u64>,
    empty_pages: u32,
}

impl RepeatDetector {
    /// Notes a page. Returns whether it has a connection that no earlier page had, and a new token for the next page.
    pub(super) fn note_page(&mut self, page: &Page) -> bool {
        let known = self.connections.len();
        self.connections.extend(page.connections.iter().map(|connection| hash_text(connection.instance_id.as_str())));
        self.connections.extend(page.unreadable.iter().map(|left_out| hash_text(&left_out.id)));
        let is_empty = page.connections.is_empty() && page.unreadable.is_empty();
        self.empty_pages = if is_empty { self.empty_pages.saturating_add(1) } else { 0 };
        let has_new = self.connections.len() > known || is_empty && self.empty_pages < MAX_EMPTY_PAGES;
        let token_is_new = page.next_token.as_deref().is_none_or(|token| self.tokens.insert(hash_text(token)));
        has_new && token_is_new
    }
}

fn hash_text(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alicloud::{self, UnreadableConnection};

    #[test]
    fn page_with_nothing_new_is_recognized() {
        let page = |ids: &[&str], token: Option<&str>| Page {
            connections: vec![],
            unreadable: ids
                .iter()
                .map(|id| UnreadableConnection { id: (*id).to_owned(), field: alicloud::RequiredField::Status })
                .collect(),
            total: None,
            next_token: token.map(ToOwned::to_owned),
            has_unreadable_token: false,
        };
        let brings = |pages: &[Page]| {
            let mut seen = RepeatDetector::default();
            pages.iter().map(|page| seen.note_page(page)).collect::<Vec<_>>()
        };
        assert_eq!(
            brings(&[page(&["a"], Some("1")), page(&["a", "b"], Some("2")), page(&["b"], None)]),
            [true, true, false]
        );
        assert_eq!(brings(&[page(&["a"], Some("1")), page(&["b"], Some("1"))]), [true, false], "the token comes again");
        let empty = || page(&[], Some("1"));
        assert_eq!(brings(&[empty(), page(&[], Some("2"))]), [true, false]);
        assert_eq!(brings(&[empty(), page(&["a"], Some("2")), page(&[], Some("3"))]), [true, true, true]);
    }
}
