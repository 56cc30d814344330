//! A short cache of the CIDR blocks of all peerings, while changes of activated connections are checked. Many may change
//! together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::preflight::UsedCidrs;

/// How long a list is kept.
const TTL: Duration = Duration::from_mins(1);

/// The last list.
#[derive(Debug, Default)]
pub struct UsedCidrsCache(Mutex<Option<ListedCidrs>>);

#[derive(Debug)]
struct ListedCidrs {
    listed_at: Instant,
    /// `None` if not all could be listed.
    used: Option<Arc<Vec<UsedCidrs>>>,
}

impl UsedCidrsCache {
    /// The last list, or what `list` returns. Only one caller lists at a time. `None` if it could not list all: that is kept,
    /// too, so that a silent region is not asked for each connection.
    pub async fn get_or_list(&self, list: impl Future<Output = Option<Vec<UsedCidrs>>>) -> Option<Arc<Vec<UsedCidrs>>> {
        let mut cache = self.0.lock().await;
        if let Some(ListedCidrs { listed_at, used }) = cache.as_ref()
            && listed_at.elapsed() < TTL
        {
            return used.clone();
        }
        let used = list.await.map(Arc::new);
        *cache = Some(ListedCidrs { listed_at: Instant::now(), used: used.clone() });
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failed_list_is_not_asked_for_again_at_once() {
        let (cache, tried) = (UsedCidrsCache::default(), std::cell::Cell::new(0));
        for _ in 0..3 {
            let list = async {
                tried.set(tried.get() + 1);
                None
            };
            assert!(cache.get_or_list(list).await.is_none());
        }
        assert_eq!(tried.get(), 1);
    }
}
