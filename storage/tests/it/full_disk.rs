//! A full disk: everybody learns what has become of his changes, none is half there, and when there is room the store goes on.

use std::collections::BTreeMap;

use crate::common::*;
use crate::faults::{left_over, recovered, run_history, table_t};
use rustydb_storage::{Durability, Error, MemoryFiles, ObjectId, SequenceSpec, Store, TableId, check};

/// Inserts rows until one is refused. Returns how that was told.
async fn insert_until_refused(store: &Store, table: TableId, name: &str, state: &mut BTreeMap<i64, String>) -> Error {
    loop {
        let id = state.len() as i64;
        match insert(store, table, &[(id, name)]).await {
            Ok(_) => state.insert(id, name.to_owned()),
            Err(error) => return error,
        };
        assert!(id < 10_000, "the disk has no end");
    }
}

/// Fails unless the store goes on as if there had always been room.
async fn require_well(files: &MemoryFiles, store: &Store, table: TableId) {
    files.leave_room(None);
    // More than a log file has room for at first. A single value so long could not be in an index that the table may have.
    let (name, ids) = ("y".repeat(2000), Vec::from_iter(-1100..-1000));
    let many: Vec<(i64, &str)> = ids.iter().map(|id| (*id, name.as_str())).collect();
    insert(store, table, &many).await.unwrap();
    store.flush().await.unwrap();
    delete(store, table, &ids).await.unwrap();
    assert_eq!(left_over(files, store).await, Vec::<String>::new());
    store.close().await.unwrap();
    let report = check(options(files)).await.unwrap();
    // A compaction that the end of the store cut short may have left its file, which the next start removes.
    assert_eq!(report.findings, vec![]);
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_byte_poisons_nothing_and_leaves_nothing_half_done() {
    let total = {
        let files = MemoryFiles::new();
        let store = open(&files).await;
        let before = files.grown_bytes();
        run_history(&store, |_, _| {}).await.unwrap();
        files.grown_bytes() - before
    };
    assert!(total > 100_000, "{total} bytes: the walk would be short");
    let mut refused = 0;
    for room in (0..total).step_by(1999) {
        let files = MemoryFiles::new();
        let store = open(&files).await;
        files.leave_room(Some(room));
        let mut states: Vec<(TableId, BTreeMap<i64, String>)> = Vec::new();
        let outcome = run_history(&store, |table, state| states.push((table, state))).await;
        if let Err(error) = outcome {
            assert!(error.is_disk_full(), "{room} bytes of room: {error}");
            refused += 1;
        }
        store.check_writable().unwrap();
        let (table, state) = states.pop().expect("there is always room for a table");
        assert_eq!(table_t(&store).await.as_ref(), Some(&state), "{room} bytes of room");
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state), "{room} bytes of room, recovered");
        require_well(&files, &store, table).await;
        assert_eq!(table_t(&open(&files).await).await, Some(state), "{room} bytes of room, with room");
    }
    assert!(refused > 30, "{refused} histories met a full disk");
}

#[tokio::test]
async fn a_log_that_cannot_grow_refuses_what_it_has_no_room_for_and_takes_what_makes_some() {
    let (files, store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    let other = transaction.create_table(keyed("u")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    files.leave_room(Some(0));
    let mut state = BTreeMap::new();
    for bytes in [10_000, 1_000, 1] {
        let refused = insert_until_refused(&store, table, &"x".repeat(bytes), &mut state).await;
        assert!(matches!(&refused, Error::NoRoom { reason } if reason.contains("the log cannot grow")), "{refused}");
    }
    assert!(state.len() > 5, "what was reserved is there to be used");
    let spec = SequenceSpec { start: 1, increment: 1, minimum: 1, maximum: 1000, cycle: false, cache: 1 };
    let numbers = |store: &Store| store.sequence_next(ObjectId(7), &spec, 2);
    assert!(matches!(numbers(&store), Err(Error::NoRoom { .. })));
    let mut transaction = store.begin();
    transaction.create_table(keyed("v")).unwrap();
    let refused = transaction.commit(Durability::Sync).await;
    assert!(matches!(&refused, Err(Error::NoRoom { .. })), "what comes leaves room for what goes: {refused:?}");
    // A transaction that has found no room has no place in the order, and nobody waits for it.
    let view = store.snapshot();
    assert_eq!(contents(&view, table).await, state);

    delete(&store, table, &[0, 2]).await.unwrap();
    state.retain(|id, _| ![0, 2].contains(id));
    let mut transaction = store.begin();
    transaction.drop_table(other).unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, state);
    assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state));

    files.leave_room(Some(100_000));
    insert(&store, table, &[(-1, "there is room again")]).await.unwrap();
    assert_eq!(numbers(&store).unwrap(), [1, 2], "none was handed out before");
    require_well(&files, &store, table).await;
}

#[tokio::test]
async fn a_store_on_a_full_disk_closes_in_order() {
    let (files, store, table) = store_with(keyed("t")).await;
    files.leave_room(Some(0));
    let mut state = BTreeMap::new();
    insert_until_refused(&store, table, &"x".repeat(1000), &mut state).await;
    store.close().await.unwrap();
    let full = Store::open(options(&files)).await;
    assert!(full.as_ref().is_err_and(Error::is_disk_full), "a start needs a little: {full:?}");
    files.leave_room(None);
    assert_eq!(check(options(&files)).await.unwrap().findings, []);
    assert_eq!(table_t(&open(&files).await).await, Some(state));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_meet_a_full_disk_each_learns_what_has_become_of_his_rows() {
    for durability in [Durability::Sync, Durability::Async] {
        let (files, store, table) = store_with(keyed("t")).await;
        files.leave_room(Some(300_000));
        let writers = (0..8_i64).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut acknowledged, mut refusals) = (BTreeMap::new(), 0);
                for round in 0..80 {
                    let id = writer * 1000 + round;
                    let name = "x".repeat(1 + (id as usize * 7919) % 4000);
                    let mut transaction = store.begin();
                    transaction.insert(table, &rows(&[(id, &name)])).await.unwrap();
                    match transaction.commit(durability).await {
                        Ok(_) => drop(acknowledged.insert(id, name)),
                        Err(Error::NoRoom { .. }) => refusals += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                (acknowledged, refusals)
            })
        });
        let (mut acknowledged, mut refusals) = (BTreeMap::new(), 0);
        for writer in futures::future::join_all(writers).await {
            let (rows, refused) = writer.unwrap();
            acknowledged.extend(rows);
            refusals += refused;
        }
        assert!(refusals > 100 && acknowledged.len() > 50, "{refusals} of {}", acknowledged.len());
        store.check_writable().unwrap();
        assert_eq!(contents(&store.snapshot(), table).await, acknowledged);
        // Makes those durable that nobody has waited for.
        delete(&store, table, &[*acknowledged.keys().next().unwrap()]).await.unwrap();
        acknowledged.pop_first();
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&acknowledged));
        require_well(&files, &store, table).await;
    }
}
