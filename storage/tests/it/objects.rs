//! Objects that are no tables, and sequences: what commits, crashes and manifests do to them.

use crate::common::*;
use rustydb_storage::{Durability, Error, MemoryFiles, ObjectId, ObjectKind, SequenceSpec, SequenceState, Store};

const SPEC: SequenceSpec =
    SequenceSpec { start: 1, increment: 1, minimum: 1, maximum: 1_000_000, cycle: false, cache: 1 };

async fn create(store: &Store, kind: ObjectKind, name: &str, definition: &str) -> Result<ObjectId, Error> {
    let mut transaction = store.begin();
    let object = transaction.create_object(kind, "public".into(), name.into(), definition.into())?;
    transaction.commit(Durability::Sync).await?;
    Ok(object.id)
}

fn definition(store: &Store, kind: ObjectKind, name: &str) -> Option<String> {
    let view = store.snapshot();
    view.catalog().find_object(kind, "public", name).map(|object| object.definition.clone())
}

#[tokio::test]
async fn objects_are_transactional_and_survive_in_log_and_manifest() {
    let files = MemoryFiles::new();
    let store = open(&files).await;
    let kept = create(&store, ObjectKind::View, "v", "one").await.unwrap();
    create(&store, ObjectKind::View, "gone", "x").await.unwrap();
    let mut transaction = store.begin();
    transaction.create_object(ObjectKind::View, "public".into(), "w".into(), "two".into()).unwrap();
    assert_eq!(definition(&store, ObjectKind::View, "w"), None, "not committed yet");
    transaction.rollback();
    for flush in [false, true] {
        if flush {
            store.flush().await.unwrap();
        }
        let mut transaction = store.begin();
        transaction.replace_object(kept, "public".into(), "v".into(), format!("flushed {flush}")).unwrap();
        let gone = transaction.view().catalog().find_object(ObjectKind::View, "public", "gone").map(|object| object.id);
        if let Some(gone) = gone {
            transaction.drop_object(gone).unwrap();
        }
        transaction.commit(Durability::Sync).await.unwrap();
        let reopened = open(&files.after_power_cut()).await;
        assert_eq!(definition(&reopened, ObjectKind::View, "v"), Some(format!("flushed {flush}")));
        assert_eq!(definition(&reopened, ObjectKind::View, "gone"), None);
        assert_eq!(definition(&reopened, ObjectKind::View, "w"), None);
    }
}

#[tokio::test]
async fn names_have_one_owner_and_the_first_to_change_an_object_wins() {
    let (_, store, _) = store_with(keyed("t")).await;
    let taken = create(&store, ObjectKind::View, "t", "x").await;
    assert!(matches!(taken, Err(Error::ObjectExists { .. })), "{taken:?}");
    let id = create(&store, ObjectKind::Sequence, "s", "x").await.unwrap();
    assert!(matches!(create(&store, ObjectKind::View, "s", "x").await, Err(Error::ObjectExists { .. })));
    create(&store, ObjectKind::Comment, "t", "a comment shares no name").await.unwrap();

    let (mut first, mut second) = (store.begin(), store.begin());
    first.replace_object(id, "public".into(), "s".into(), "first".into()).unwrap();
    second.drop_object(id).unwrap();
    first.commit(Durability::Sync).await.unwrap();
    let outcome = second.commit(Durability::Sync).await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");

    let (mut first, mut second) = (store.begin(), store.begin());
    first.create_object(ObjectKind::View, "public".into(), "n".into(), "x".into()).unwrap();
    second.create_table(keyed("n")).unwrap();
    first.commit(Durability::Sync).await.unwrap();
    let outcome = second.commit(Durability::Sync).await;
    assert!(matches!(outcome, Err(Error::TableExists { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_schema_cannot_go_while_something_moves_in() {
    let files = MemoryFiles::new();
    let store = open(&files).await;
    let mut transaction = store.begin();
    let schema = transaction.create_object(ObjectKind::Schema, String::new(), "s".into(), String::new()).unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    let (mut drops, mut creates) = (store.begin(), store.begin());
    drops.drop_object(schema.id).unwrap();
    let mut table = keyed("t");
    table.schema_name = "s".into();
    creates.create_table(table).unwrap();
    creates.commit(Durability::Sync).await.unwrap();
    let outcome = drops.commit(Durability::Sync).await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_sequence_never_repeats_a_value_whatever_crashes() {
    let files = MemoryFiles::new();
    let mut store = open(&files).await;
    let id = create(&store, ObjectKind::Sequence, "s", "x").await.unwrap();
    let (mut last, mut files) = (0, files);
    for round in 0..12 {
        let count = [1, 5, 40, 3][round % 4];
        let values = store.sequence_next(id, &SPEC, count).unwrap();
        assert_eq!(values.len(), count);
        for value in values {
            assert!(value > last, "{value} after {last} in round {round}");
            last = value;
        }
        if round % 3 == 1 {
            store.flush().await.unwrap();
        }
        files = files.after_power_cut();
        drop(store);
        store = open(&files).await;
    }
    // Closed in order, it goes on where it was.
    let value = store.sequence_next(id, &SPEC, 1).unwrap()[0];
    store.close().await.unwrap();
    drop(store);
    let store = open(&files).await;
    assert_eq!(store.sequence_next(id, &SPEC, 1).unwrap(), [value + 1]);
}

#[tokio::test]
async fn a_sequence_can_be_put_anywhere_and_ends() {
    let files = MemoryFiles::new();
    let store = open(&files).await;
    let id = create(&store, ObjectKind::Sequence, "s", "x").await.unwrap();
    let spec = SequenceSpec { maximum: 10, ..SPEC };
    store.sequence_set(id, SequenceState { value: 9, called: false }).unwrap();
    assert_eq!(store.sequence_next(id, &spec, 1).unwrap(), [9]);
    assert!(matches!(store.sequence_next(id, &spec, 2), Err(Error::SequenceExhausted { upwards: true })));
    assert_eq!(store.sequence_next(id, &spec, 1).unwrap(), [10]);
    store.sequence_set(id, SequenceState { value: 3, called: true }).unwrap();
    let store = open(&files.after_power_cut()).await;
    assert_eq!(store.sequence_next(id, &spec, 1).unwrap(), [4]);
}

#[tokio::test]
async fn a_sequence_used_before_its_creation_commits_keeps_its_place() {
    let files = MemoryFiles::new();
    let store = open(&files).await;
    let mut transaction = store.begin();
    let id = transaction.create_object(ObjectKind::Sequence, "public".into(), "s".into(), "x".into()).unwrap().id;
    assert_eq!(store.sequence_next(id, &SPEC, 2).unwrap(), [1, 2]);
    store.flush().await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    let store = open(&files.after_power_cut()).await;
    assert!(store.sequence_next(id, &SPEC, 1).unwrap()[0] > 2);
}

/// The runtime would have it wait until it has let others have their turn, which it cannot.
#[test]
fn numbers_come_to_a_task_that_has_had_its_turn() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = open(&MemoryFiles::new()).await;
            while futures::poll!(std::pin::pin!(tokio::task::coop::consume_budget())).is_ready() {}
            sender.send(store.sequence_next(ObjectId(1), &SPEC, 2)).unwrap();
        });
    });
    let numbers = receiver.recv_timeout(std::time::Duration::from_secs(60)).expect("it does not wait for ever");
    assert_eq!(numbers.unwrap(), [1, 2]);
}
