//! The latest of what a fake received. Anybody on this machine can send to it, so what it keeps has an end.

use std::collections::VecDeque;

/// The most bytes of requests that a fake keeps.
const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;
/// What an item takes besides its bytes.
const ITEM_BYTES: usize = 256;

/// The latest items, up to a number of bytes in all. The newest one is always kept.
#[derive(Debug)]
pub(super) struct Recent<T> {
    items: VecDeque<SizedItem<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct SizedItem<T> {
    item: T,
    bytes: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Recent<T> {
    /// Adds an item that came in so many bytes, and removes the oldest ones.
    pub(super) fn push(&mut self, item: T, bytes: usize) {
        let bytes = bytes.saturating_add(ITEM_BYTES);
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push_back(SizedItem { item, bytes });
        while self.bytes > MAX_KEPT_BYTES && self.items.len() > 1 {
            self.bytes = self.bytes.saturating_sub(self.items.pop_front().map_or(0, |oldest| oldest.bytes));
        }
    }

    /// The items, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|sized| &sized.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_items_make_room_for_the_newest() {
        let mut recent = Recent::default();
        for number in 0..100 {
            recent.push(number, 1024 * 1024);
        }
        assert_eq!((recent.iter().count(), recent.iter().last()), (31, Some(&99)));
        recent.push(100, usize::MAX);
        assert_eq!(recent.iter().collect::<Vec<_>>(), [&100]);
        recent.push(101, 1);
        assert_eq!(recent.iter().collect::<Vec<_>>(), [&101]);
        recent.push(102, 1);
        assert_eq!(recent.iter().count(), 2);
    }
}
