//! Executions on record: from their intent to their end, also where belljar did not live to see that.

use store::{Event, EventKind, Filter, Options, Store};

fn intent(execution: &str) -> Event {
    let event = Event::new(EventKind::ExecutionIntended).by("alice").with("code_bytes", 8);
    let own = |text: &str| Some(text.to_owned());
    Event { pool: own("default"), session: own("s-1"), session_guid: own("ses_1"), execution: own(execution), ..event }
}

fn conclusion(execution: &str) -> Event {
    Event { execution: Some(execution.to_owned()), ..Event::new(EventKind::ExecutionConcluded).with("outcome", "completed") }
}

#[test]
fn an_end_takes_from_its_beginning_what_it_does_not_say() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), Options::default()).unwrap();
    store.append(intent("exe_1")).unwrap();
    store.append(conclusion("exe_1")).unwrap();
    store.append(conclusion("exe_never_begun")).unwrap();
    let found = store.query(&Filter { kind: Some(EventKind::ExecutionConcluded), ..Filter::default() }).unwrap();
    let fields: Vec<_> =
        found.iter().map(|event| (event.principal.as_deref(), event.pool.as_deref(), event.session.as_deref(), event.session_guid.as_deref())).collect();
    assert_eq!(fields, [(Some("alice"), Some("default"), Some("s-1"), Some("ses_1")), (None, None, None, None)]);
}

#[test]
fn what_belljar_did_not_live_to_conclude_is_concluded_at_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), Options::default()).unwrap();
    for execution in ["exe_1", "exe_2", "exe_3"] {
        store.append(intent(execution)).unwrap();
    }
    store.append(conclusion("exe_2")).unwrap();
    drop(store);
    for _ in 0..3 {
        let store = Store::open(home.path(), Options::default()).unwrap();
        let found = store.query(&Filter { after_seq: Some(4), ..Filter::default() }).unwrap();
        let seen: Vec<_> = found.iter().map(|event| (event.seq, event.kind.as_str(), event.execution.as_deref().unwrap())).collect();
        assert_eq!(seen, [(5, "execution_concluded", "exe_1"), (6, "execution_concluded", "exe_3")], "once each");
        assert_eq!(found[0].detail.to_string(), r#"{"outcome":"unknown","reason":"belljar ended before it did"}"#);
        assert_eq!((found[0].principal.as_deref(), found[0].session_guid.as_deref()), (Some("alice"), Some("ses_1")));
        assert_eq!(store.status().last_seq, 6);
    }
}
