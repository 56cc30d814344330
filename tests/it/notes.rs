//! Other items of the table: they expire, they have a maximum size, and the audit does not take them for records.

use crate::support::prelude::*;
use peergate::notes::{Error, Note, NoteId};

#[tokio::test]
async fn note_is_readable_until_it_expires() {
    let app = TestApp::start().await;
    let (notes, now) = (&app.parts.notes, clock::now());
    let (id, until) = (NoteId::new("token", "feishu").unwrap(), now + SignedDuration::from_mins(10));
    assert_eq!(notes.load(&id, now).await.unwrap(), None);
    notes.save(&id, "one", until, now).await.unwrap();
    notes.save(&id, "two", until, now).await.unwrap();
    let Note { text, expires_at: kept } = notes.load(&id, now).await.unwrap().unwrap();
    assert_eq!((text.as_str(), kept.as_second()), ("two", until.as_second()));
    assert_eq!(notes.load(&id, until).await.unwrap(), None);
    assert_eq!(notes.load(&NoteId::new("token", "other").unwrap(), now).await.unwrap(), None);
}

#[tokio::test]
async fn single_use_note_is_taken_once_until_it_expires() {
    let app = TestApp::start().await;
    let (notes, now) = (&app.parts.notes, clock::now());
    let (id, until) = (NoteId::new("once", "feishu/1").unwrap(), now + SignedDuration::from_mins(10));
    let all = futures_util::future::join_all((0..8).map(|_| notes.save_if_absent(&id, until, now))).await;
    assert_eq!(all.iter().filter(|taken| **taken == Ok(true)).count(), 1, "{all:?}");
    assert_eq!(notes.save_if_absent(&id, until, now).await, Ok(false));
    assert_eq!(notes.save_if_absent(&id, until + SignedDuration::from_mins(10), until).await, Ok(true), "afterwards");
}

#[tokio::test]
async fn note_has_a_maximum_size_and_lifetime() {
    let app = TestApp::start().await;
    let (notes, now) = (&app.parts.notes, clock::now());
    let id = NoteId::new("token", "feishu").unwrap();
    let far = now + SignedDuration::from_hours(24 * 365);
    assert_eq!(notes.save(&id, &"x".repeat(4097), far, now).await, Err(Error::TooLong));
    assert_eq!(NoteId::new("token", &"x".repeat(300)), Err(Error::TooLong));
    notes.save(&id, &"x".repeat(4096), far, now).await.unwrap();
    let until = notes.load(&id, now).await.unwrap().unwrap().expires_at;
    assert_eq!(until.duration_since(now).as_hours(), 31 * 24 - i64::from(now.subsec_nanosecond() > 0));
}

#[tokio::test]
async fn note_is_no_record_for_auditors_or_the_watcher() {
    let app = TestApp::start().await;
    let (notes, now) = (&app.parts.notes, clock::now());
    let id = app.new_request().await;
    app.discover().await;
    let note = NoteId::new("token", "feishu").unwrap();
    notes.save(&note, "t-1", now + SignedDuration::from_mins(10), now).await.unwrap();
    let records = app.parts.store.scan_records(None).await.unwrap().items;
    let ids: Vec<_> = records.iter().map(|scanned| scanned.id.as_str()).collect();
    assert_eq!(ids, [format!("prod/{id}")]);
    assert_eq!(app.discover().await.changed, 0);
}
