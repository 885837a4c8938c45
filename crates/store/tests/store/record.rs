//! Appending from many threads, and finding it again.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use store::{Durability, Event, EventKind, Filter, Options, Store};

const THREADS: usize = 32;
const EACH: usize = 40;

#[test]
fn many_threads_lose_nothing_and_leave_no_gap() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), Options { durability: Durability::Normal }).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut last = 0;
                for turn in 0..EACH {
                    let event = Event { session: Some(format!("{thread}-{turn}")), ..Event::new(EventKind::FileRead) };
                    if turn % 2 == 0 {
                        let seq = store.append(event).unwrap();
                        assert!(seq > last, "a thread's own events are in its order");
                        last = seq;
                        let found = store.query(&Filter { after_seq: Some(seq - 1), limit: 1, ..Filter::default() }).unwrap();
                        assert_eq!(found[0].session.as_deref(), Some(format!("{thread}-{turn}").as_str()), "acknowledged is there for everybody");
                    } else {
                        store.enqueue(event).unwrap();
                    }
                }
            });
        }
    });
    store.flush().unwrap();
    let all = store.query(&Filter::default()).unwrap();
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=i64::try_from(THREADS * EACH).unwrap()).collect::<Vec<_>>());
    assert_eq!(all.iter().map(|event| event.session.clone().unwrap()).collect::<HashSet<_>>().len(), THREADS * EACH);
}

#[test]
fn a_filter_finds_what_matches_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), Options { durability: Durability::Normal }).unwrap();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let text = |text: &str| Some(text.to_owned());
    for (second, (principal, session)) in [("alice", "one"), ("bob", "one"), ("alice", "two"), ("bob", "two"), ("alice", "one")].into_iter().enumerate() {
        let event = Event::new(if second % 2 == 0 { EventKind::FileRead } else { EventKind::FileWritten }).by(principal);
        let at = start + Duration::from_secs(second.try_into().unwrap());
        let (pool, session_guid) = (text(if second == 3 { "other" } else { "default" }), Some(format!("ses_{second}")));
        store.append(Event { at, pool, session: text(session), session_guid, execution: Some(format!("exe_{second}")), ..event }).unwrap();
    }
    let at = |second: u64| Some(start + Duration::from_secs(second));
    let found = |filter: Filter| store.query(&filter).unwrap().into_iter().map(|event| event.seq).collect::<Vec<_>>();
    let all = Filter::default;
    assert_eq!(found(all()), [1, 2, 3, 4, 5]);
    assert_eq!(found(Filter { since: at(1), until: at(3), ..all() }), [2, 3]);
    assert_eq!(found(Filter { kind: Some(EventKind::FileWritten), ..all() }), [2, 4]);
    assert_eq!(found(Filter { principal: text("alice"), session: text("one"), ..all() }), [1, 5]);
    assert_eq!(found(Filter { session: text("ses_2"), ..all() }), [3]);
    assert_eq!(found(Filter { pools: Some(vec!["none".to_owned(), "other".to_owned()]), ..all() }), [4]);
    assert_eq!(found(Filter { pools: Some(Vec::new()), ..all() }), Vec::<i64>::new());
    assert_eq!(found(Filter { execution: text("exe_1"), ..all() }), [2]);
    assert_eq!(found(Filter { after_seq: Some(2), limit: 2, ..all() }), [3, 4]);
    assert_eq!(found(Filter { limit: 2, latest: true, ..all() }), [4, 5]);
    assert_eq!(found(Filter { principal: text("' OR 1=1 --"), ..all() }), Vec::<i64>::new());
    assert_eq!(found(Filter { principal: text("%"), ..all() }), Vec::<i64>::new());
}

/// Text that hurts where text is put together instead of passed.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\x00-\\x1f\\x7f-\\u{9f}'\"\\\\;%_\\-]{0,40}",
        Just("'); DROP TABLE events; --".to_owned()),
        Just("\u{202e}\0\u{feff}".to_owned())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_text_comes_back_as_it_was(texts in proptest::collection::vec(hostile(), 6)) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), Options { durability: Durability::Normal }).unwrap();
        let some = |index: usize| Some(texts[index].clone());
        let event = Event::new(EventKind::SessionCreated).with("path", texts[5].clone());
        let event = Event { principal: some(0), pool: some(1), session: some(2), session_guid: some(3), execution: some(4), ..event };
        store.append(event).unwrap();
        store.append(Event::new(EventKind::SessionEnded)).unwrap();
        let pools = Some(vec![texts[1].clone()]);
        let filter = Filter { principal: some(0), pools, session: some(2), execution: some(4), ..Filter::default() };
        let found = store.query(&filter).unwrap();
        prop_assert_eq!(found.len(), 1);
        let found = &found[0];
        let seen = [&found.principal, &found.pool, &found.session, &found.session_guid, &found.execution];
        prop_assert_eq!(seen.map(|text| text.clone().unwrap()).to_vec(), texts[..5].to_vec());
        prop_assert_eq!(found.detail["path"].as_str().unwrap(), &texts[5]);
        let line = serde_json::to_string(found).unwrap();
        let breaks = line.contains(['\n', '\x1b']);
        prop_assert!(!breaks, "{:?}", line);
    }
}
