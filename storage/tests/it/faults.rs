//! Power cuts, failing disks and damaged bytes.

use std::collections::BTreeMap;

use crate::common::*;
use rustydb_storage::{
    Durability, Error, ForeignKey, MemoryFiles, NewIndex, NewTable, ReferenceAction, Store, StoreOptions, TableId,
    check,
};

/// A history that goes through every kind of write: rows, a bulk load, flushes, compactions, deletes and DDL. One table is
/// rewritten under its name, and others come and go. Calls `acknowledged`
/// with the state after each commit that was reported as durable, and stops at the first error.
pub(crate) async fn run_history(
    store: &Store,
    mut acknowledged: impl FnMut(TableId, BTreeMap<i64, String>),
) -> Result<(), Error> {
    let mut state = BTreeMap::new();
    let mut transaction = store.begin();
    let mut table = transaction.create_table(keyed("t"))?.id;
    transaction.commit(Durability::Sync).await?;
    acknowledged(table, state.clone());
    for round in 0..4_i64 {
        let base = round * 100;
        let mut transaction = store.begin();
        let side = transaction.create_table(keyed("side"))?.id;
        load(&mut transaction, side, &[(1, "a"), (2, "b")]).await?;
        transaction.insert(side, &rows(&[(3, "c")])).await?;
        transaction.commit(Durability::Sync).await?;
        acknowledged(table, state.clone());
        insert(store, table, &[(base, "row"), (base + 1, "row")]).await?;
        state.extend(map(&[(base, "row"), (base + 1, "row")]));
        acknowledged(table, state.clone());

        let mut transaction = store.begin();
        load(&mut transaction, table, &[(base + 10, "load"), (base + 11, "load"), (base + 12, "load")]).await?;
        transaction.delete(table, &keys(&[base + 11])).await?;
        transaction.insert(table, &rows(&[(base + 20, "mixed")])).await?;
        transaction.commit(Durability::Sync).await?;
        state.extend(map(&[(base + 10, "load"), (base + 12, "load"), (base + 20, "mixed")]));
        acknowledged(table, state.clone());

        update(store, side, &[1, 3], &[(1, "d"), (3, "e")]).await?;
        acknowledged(table, state.clone());
        if round % 2 == 1 {
            store.flush().await?;
            store.compact().await?;
        }
        let mut transaction = store.begin();
        transaction.drop_table(side)?;
        match round {
            0 => {
                let index = NewIndex::new("i", vec![1], false);
                transaction.create_index(table, index).await?;
            }
            2 => {
                transaction.drop_table(table)?;
                table = transaction.create_table(keyed("t"))?.id;
                let all: Vec<(i64, &str)> =
                    state.iter().map(|(key, name): (&i64, &String)| (*key, name.as_str())).collect();
                load(&mut transaction, table, &all).await?;
            }
            _ => {}
        }
        transaction.commit(Durability::Sync).await?;
        acknowledged(table, state.clone());
        update(store, table, &[base, base + 10], &[(base, "new"), (base + 50, "moved")]).await?;
        state.insert(base, "new".into());
        state.remove(&(base + 10));
        state.insert(base + 50, "moved".into());
        acknowledged(table, state.clone());
    }
    let mut transaction = store.begin();
    transaction.create_table(keyed("other"))?;
    transaction.commit(Durability::Sync).await?;
    acknowledged(table, state.clone());
    Ok(())
}

pub(crate) async fn table_t(store: &Store) -> Option<BTreeMap<i64, String>> {
    let view = store.snapshot();
    let table = view.catalog().find("public", "t").map(|table| table.id)?;
    Some(contents(&view, table).await)
}

/// Opens what a crash left and returns what is in table `t`, if there is one.
pub(crate) async fn recovered(files: &MemoryFiles) -> Option<BTreeMap<i64, String>> {
    let report = check(options(files)).await;
    if let Ok(report) = report {
        assert_eq!(report.findings, [], "a crash is not damage");
    }
    let store = open(files).await;
    let found = table_t(&store).await;
    // Once it was seen, it stays, although nothing is written out and nobody closes anything.
    for left in [files.after_kill(), files.after_power_cut()] {
        assert_eq!(table_t(&open(&left).await).await, found, "after a second start");
        assert_eq!(table_t(&open(&left.after_power_cut()).await).await, found, "after a third start");
    }
    // The store must be fit for work, not just for reading.
    let table = store.catalog().find("public", "t").map(|table| table.id)?;
    insert(&store, table, &[(-1, "after the crash")]).await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(check(options(files)).await.unwrap().findings, []);
    found
}

/// What crashes leave, a few for each `round`: of what was not synced nothing, the beginning, or pieces.
fn crashes(files: &MemoryFiles, round: u64) -> impl Iterator<Item = (String, MemoryFiles)> {
    let torn = [0, [1, 7, 40, 10_000][round as usize % 4]];
    let torn = torn.map(|bytes| (format!("{bytes} torn bytes"), files.after_torn_power_cut(bytes)));
    torn.into_iter().chain([(format!("scattered by {round}"), files.after_scattered_power_cut(round))])
}

#[tokio::test]
async fn a_power_cut_at_any_write_loses_no_acknowledged_commit_and_shows_no_half_of_one() {
    let total = {
        let files = MemoryFiles::new();
        run_history(&open(&files).await, |_, _| {}).await.unwrap();
        files.changes()
    };
    assert!(total > 60, "{total} changes: the walk would be short");
    for calls in 0..total {
        let files = MemoryFiles::new();
        files.fail_after(Some(calls));
        let mut states: Vec<BTreeMap<i64, String>> = Vec::new();
        if let Ok(store) = Store::open(options(&files)).await {
            let _ = run_history(&store, |_, state| states.push(state)).await;
            let _ = store.close().await;
        }
        // Whatever the failing call had done by then may or may not have reached the disk.
        for (how, left) in crashes(&files, calls) {
            let found = recovered(&left).await;
            require_acknowledged(&found, &states, &format!("failure at call {calls}, {how}")).await;
        }
    }
}

/// Fails unless what was found is the last acknowledged state, or that after one commit more: logged, but not yet answered.
async fn require_acknowledged(found: &Option<BTreeMap<i64, String>>, states: &[BTreeMap<i64, String>], context: &str) {
    match (found, states.last()) {
        (None, None) => {}
        (None, Some(_)) => panic!("{context}: the table is gone"),
        (Some(found), last) => {
            let acknowledged = last.is_some_and(|last| found == last);
            let one_more = !acknowledged && is_next_state(states.len(), found).await;
            assert!(acknowledged || one_more, "{context}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_start_may_crash_anywhere_and_the_next_one_finds_the_same() {
    let total = {
        let files = MemoryFiles::new();
        run_history(&open(&files).await, |_, _| {}).await.unwrap();
        files.changes()
    };
    let mut walked: u64 = 0;
    // Not every call is the last before a crash; each kind of them is.
    for calls in (0..total).step_by(11) {
        let files = MemoryFiles::new();
        files.fail_after(Some(calls));
        let mut states: Vec<BTreeMap<i64, String>> = Vec::new();
        if let Ok(store) = Store::open(options(&files)).await {
            let _ = run_history(&store, |_, state| states.push(state)).await;
            let _ = store.close().await;
        }
        let first = match calls % 3 {
            0 => files.after_kill(),
            1 => files.after_torn_power_cut(40),
            _ => files.after_scattered_power_cut(calls),
        };
        for starting in 0.. {
            let second = first.after_kill();
            second.fail_after(Some(starting));
            let opened = Store::open(options(&second)).await;
            let is_open = opened.is_ok();
            if let Ok(store) = opened {
                // Nothing is written before it is open.
                drop(store);
            }
            for (how, left) in [
                ("killed", second.after_kill()),
                ("power cut", second.after_power_cut()),
                ("scattered", second.after_scattered_power_cut(starting)),
            ] {
                let store = open(&left).await;
                let context = format!("failure at call {calls}, then at call {starting} of the start, {how}");
                require_acknowledged(&table_t(&store).await, &states, &context).await;
                walked += 1;
            }
            if is_open {
                break;
            }
        }
    }
    assert!(walked > 300, "only {walked} crashes");
}

/// A start makes a log file and is killed before its name is durable, the next one sees the file, and then the power goes.
#[tokio::test]
async fn what_starts_that_crash_leave_does_not_hide_what_is_written_after_them() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let calls = {
        let files = files.after_kill();
        drop(open(&files).await);
        files.changes()
    };
    assert!((8..40).contains(&calls), "{calls} changes");
    for first in 0..calls {
        let killed = files.after_kill();
        killed.fail_after(Some(first));
        drop(Store::open(options(&killed)).await);
        for second in 0..=calls {
            let started = killed.after_kill();
            started.fail_after(Some(second));
            drop(Store::open(options(&started)).await);
            let left = started.after_power_cut();
            let store = open(&left).await;
            insert(&store, table, &[(2, "b")]).await.unwrap();
            let found = table_t(&open(&left.after_power_cut()).await).await;
            assert_eq!(found, Some(map(&[(1, "a"), (2, "b")])), "failures at call {first}, then at call {second}");
        }
    }
}

#[tokio::test]
async fn what_a_killed_process_left_unsynced_is_durable_before_anything_is_built_on_it() {
    let total = {
        let files = MemoryFiles::new();
        run_history(&open(&files).await, |_, _| {}).await.unwrap();
        files.changes()
    };
    for calls in 0..total {
        let files = MemoryFiles::new();
        files.fail_once_after(calls);
        if let Ok(store) = Store::open(options(&files)).await {
            let _ = run_history(&store, |_, _| {}).await;
        }
        let files = files.after_kill();
        let store = open(&files).await;
        let Some(mut state) = table_t(&store).await else { continue };
        let table = store.catalog().find("public", "t").unwrap().id;
        insert(&store, table, &[(-7, "acknowledged")]).await.unwrap();
        state.insert(-7, "acknowledged".into());
        for (how, left) in crashes(&files, calls) {
            assert_eq!(recovered(&left).await.as_ref(), Some(&state), "killed at call {calls}, then {how}");
        }
    }
}

/// Whether `found` is the state after one commit more than were acknowledged: logged, but not yet answered.
async fn is_next_state(acknowledged: usize, found: &BTreeMap<i64, String>) -> bool {
    let files = MemoryFiles::new();
    let mut states = Vec::new();
    run_history(&open(&files).await, |_, state| states.push(state)).await.unwrap();
    states.get(acknowledged) == Some(found)
}

#[tokio::test]
async fn a_failed_sync_stops_writes_and_not_reads() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    files.fail_after(Some(0));
    assert!(matches!(insert(&store, table, &[(2, "b")]).await, Err(Error::Poisoned { .. })));
    files.fail_after(None);
    assert!(matches!(insert(&store, table, &[(3, "c")]).await, Err(Error::Poisoned { .. })), "until a restart");
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "a")]));
    let _ = store.close().await;
    drop(store);
    let store = open(&files).await;
    insert(&store, table, &[(3, "c")]).await.unwrap();
}

#[tokio::test]
async fn a_flush_that_meets_a_full_disk_stops_nothing_and_is_tried_again() {
    for folder in ["segments", "manifest", "log"] {
        let (files, store, table) = store_with(keyed("t")).await;
        insert(&store, table, &[(1, "a"), (2, "b"), (3, "c")]).await.unwrap();
        files.fill(Some(folder));
        for id in 10..13 {
            assert!(matches!(store.flush().await, Err(Error::Io { .. })), "{folder}");
            insert(&store, table, &[(id, "later")]).await.unwrap();
        }
        update(&store, table, &[1, 10], &[(1, "newer"), (10, "newer")]).await.unwrap();
        delete(&store, table, &[2, 11]).await.unwrap();
        let state = map(&[(1, "newer"), (3, "c"), (10, "newer"), (12, "later")]);
        assert_eq!(contents(&store.snapshot(), table).await, state, "{folder}");
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state), "{folder}, without a flush");
        files.fill(None);
        store.flush().await.unwrap();
        assert_eq!(contents(&store.snapshot(), table).await, state, "{folder}");
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state), "{folder}, flushed");
        insert(&store, table, &[(4, "d")]).await.unwrap();
        store.close().await.unwrap();
        let report = check(options(&files)).await.unwrap();
        assert_eq!((report.findings, report.left_over), (vec![], vec![]), "{folder}");
    }
}

#[tokio::test]
async fn a_store_whose_flush_failed_closes_in_order() {
    let (files, store, table) = store_with(keyed("t")).await;
    let name = "x".repeat(1 << 20);
    for id in 0..20 {
        insert(&store, table, &[(id, &name)]).await.unwrap();
    }
    files.fill(Some("segments"));
    assert!(matches!(store.flush().await, Err(Error::Io { .. })));
    for id in 20..40 {
        insert(&store, table, &[(id, &name)]).await.unwrap();
    }
    store.close().await.unwrap();
    files.fill(None);
    assert_eq!(recovered(&files).await.unwrap().len(), 40);
}

#[tokio::test]
async fn while_a_flush_waits_for_room_tables_are_dropped_loaded_and_merged() {
    for is_manifest in [false, true] {
        let (files, store, table, _) = store_to_compact().await;
        let mut transaction = store.begin();
        let other = transaction.create_table(keyed("u")).unwrap().id;
        transaction.commit(Durability::Sync).await.unwrap();
        insert(&store, other, &[(1, "a"), (2, "b")]).await.unwrap();
        files.fill(Some(if is_manifest { "manifest" } else { "segments" }));
        assert!(matches!(store.flush().await, Err(Error::Io { .. })));
        // Marks in what is frozen, of a table that goes.
        update(&store, other, &[1], &[(1, "newer")]).await.unwrap();
        let mut transaction = store.begin();
        transaction.drop_table(other).unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        assert!(matches!(store.flush().await, Err(Error::Io { .. })));
        files.fill(None);
        // A merge, and a load, neither of which the manifest of the frozen rows may take for older than it is.
        delete(&store, table, &[20, 21, 33]).await.unwrap();
        store.compact().await.unwrap();
        let mut transaction = store.begin();
        load(&mut transaction, table, &[(1001, "loaded"), (1002, "loaded")]).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        let state = contents(&store.snapshot(), table).await;
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state));
        for _ in 0..2 {
            store.flush().await.unwrap();
            assert_eq!(contents(&store.snapshot(), table).await, state);
            assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state));
        }
        assert_eq!(left_over(&files, &store).await, Vec::<String>::new());
        store.close().await.unwrap();
        assert_eq!(check(options(&files)).await.unwrap().findings, []);
    }
}

#[tokio::test]
async fn a_full_disk_takes_rows_until_memory_has_enough_and_then_what_removes_them() {
    let files = MemoryFiles::new();
    let store = Store::open(StoreOptions { memtable_bytes: 64 << 10, ..options(&files) }).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    let other = transaction.create_table(keyed("u")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    files.fill(Some("segments"));
    let name = "x".repeat(1000);
    let mut taken = 0;
    let refused = loop {
        match insert(&store, table, &[(taken, &name)]).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "the memtable grows without end");
    };
    assert!(matches!(&refused, Error::NoRoom { reason } if reason.contains("segments")), "{refused}");
    assert!(taken > 60, "{taken}");
    delete(&store, table, &[0, 1, 2]).await.unwrap();
    let mut transaction = store.begin();
    transaction.drop_table(other).unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await.len() as i64, taken - 3);
    files.fill(None);
    store.flush().await.unwrap();
    insert(&store, table, &[(taken, &name)]).await.unwrap();
    let found = recovered(&files.after_power_cut()).await.unwrap();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), (3..=taken).collect::<Vec<_>>());
}

/// A closed store with everything in it: a flushed table with deletes, a bulk load, and rows in the log.
async fn sound_store() -> (MemoryFiles, BTreeMap<i64, String>) {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b"), (3, "c")]).await.unwrap();
    store.flush().await.unwrap();
    delete(&store, table, &[2]).await.unwrap();
    store.flush().await.unwrap();
    let mut transaction = store.begin();
    load(&mut transaction, table, &[(10, "x"), (11, "y")]).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    insert(&store, table, &[(20, "z")]).await.unwrap();
    let state = contents(&store.snapshot(), table).await;
    store.close().await.unwrap();
    (files, state)
}

#[tokio::test]
async fn a_sound_store_passes_the_check() {
    let (files, state) = sound_store().await;
    let report = check(options(&files)).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.tables, report.segments, report.rows), (1, 2, state.len() as u64));
    assert!(report.log_records > 0);
}

#[tokio::test]
async fn a_flipped_byte_in_any_file_is_found_by_the_check_and_never_read_as_data() {
    let (pristine, state) = sound_store().await;
    for (path, bytes) in pristine.paths() {
        for at in 0..bytes as usize {
            let files = pristine.after_power_cut();
            files.damage(&path, |data| data[at] ^= 0x20);
            let found = match check(options(&files)).await {
                Ok(report) => {
                    report.findings.iter().any(|finding| finding.file.starts_with(path.split('/').next().unwrap()))
                }
                Err(Error::FutureFormat { .. } | Error::NotADatabase { .. }) => true,
                Err(other) => panic!("{path} byte {at}: {other}"),
            };
            // The last bytes of a log cannot be told from a write that a crash cut short, and the four magic bytes a
            // Parquet file begins with carry nothing.
            let excused = path.starts_with("log/") || (path.starts_with("segments/") && at < 4);
            assert!(found || excused, "{path} byte {at} of {bytes} changed unnoticed");
            if !found && let Ok(store) = Store::open(options(&files)).await {
                let view = store.snapshot();
                let table = view.catalog().find("public", "t").unwrap().id;
                let read = contents(&view, table).await;
                assert!(read.iter().all(|(id, name)| state.get(id) == Some(name)), "{path} byte {at}: {read:?}");
            }
        }
    }
}

#[tokio::test]
async fn damage_to_the_log_does_not_hide_damage_to_segments() {
    let (pristine, store, table) = store_with(keyed("t")).await;
    for id in 1..=2 {
        insert(&store, table, &[(id, "in a segment")]).await.unwrap();
        store.flush().await.unwrap();
    }
    insert(&store, table, &[(3, "in the log")]).await.unwrap();
    store.close().await.unwrap();
    let paths: Vec<String> = pristine.paths().into_iter().map(|(path, _)| path).collect();
    let log = paths.iter().find(|path| path.starts_with("log/")).unwrap();
    let segments: Vec<&String> = paths.iter().filter(|path| path.starts_with("segments/")).collect();
    assert!(segments.len() > 1);
    let files = pristine.after_power_cut();
    // The head of a log file is never the torn end of a write.
    files.damage(log, |data| data[0] ^= 0x20);
    files.damage(segments[0], |data| data[8] ^= 0x20);
    files.remove_file(segments[1]);
    let report = check(options(&files)).await.unwrap();
    for damaged in [log, segments[0], segments[1]] {
        assert!(report.findings.iter().any(|finding| finding.file == *damaged), "{damaged}: {:?}", report.findings);
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let (pristine, _) = sound_store().await;
    let segment =
        pristine.paths().into_iter().map(|(path, _)| path).find(|path| path.starts_with("segments/")).unwrap();
    let files = pristine.after_power_cut();
    files.remove_file(&segment);
    assert!(matches!(Store::open(options(&files)).await, Err(Error::Corruption { file, .. }) if file == segment));
    let report = check(options(&files)).await.unwrap();
    assert!(report.findings.iter().any(|finding| finding.file == segment && finding.detail.contains("missing")));
}

#[tokio::test]
async fn every_segment_of_another_length_is_named_and_the_check_goes_on() {
    let (pristine, _) = sound_store().await;
    let paths: Vec<String> = pristine.paths().into_iter().map(|(path, _)| path).collect();
    let segments: Vec<&String> = paths.iter().filter(|path| path.starts_with("segments/")).collect();
    for cut_to in [0, 100] {
        let files = pristine.after_power_cut();
        files.damage(segments[0], |data| data.truncate(cut_to));
        files.damage(segments[1], |data| data.push(b'x'));
        assert!(matches!(Store::open(options(&files)).await, Err(Error::Corruption { .. })));
        let report = check(options(&files)).await.unwrap();
        for segment in &segments {
            assert!(
                report.findings.iter().any(|finding| finding.file == **segment),
                "{segment}: {:?}",
                report.findings
            );
        }
    }
}

/// A store with three small segments (too few for the background to merge), overlapping, with dead rows, worth merging, and what is in it. Rows of the log
/// replace and delete some of the segments'.
async fn store_to_compact() -> (MemoryFiles, Store, TableId, BTreeMap<i64, String>) {
    let (files, store, table) = store_with(keyed("t")).await;
    for round in 0..3 {
        let rows: Vec<(i64, &str)> = (0..40).map(|row| (row * 4 + round, "flushed")).collect();
        insert(&store, table, &rows).await.unwrap();
        delete(&store, table, &[round * 3]).await.unwrap();
        store.flush().await.unwrap();
    }
    delete(&store, table, &[16, 17, 18]).await.unwrap();
    update(&store, table, &[33], &[(33, "newer")]).await.unwrap();
    let state = contents(&store.snapshot(), table).await;
    (files, store, table, state)
}

#[tokio::test]
async fn a_compaction_that_fails_at_any_call_changes_nothing_that_anybody_sees() {
    let total = {
        let (files, store, _, _) = store_to_compact().await;
        let before = files.changes();
        store.compact().await.unwrap();
        files.changes() - before
    };
    assert!(total > 6, "{total} changes: the walk would be short");
    for calls in 0..total {
        for once in [false, true] {
            let (files, store, table, mut state) = store_to_compact().await;
            let mut uncertain = None;
            if once {
                files.fail_once_after(calls)
            } else {
                files.fail_after(Some(calls))
            }
            let _ = store.compact().await;
            assert_eq!(contents(&store.snapshot(), table).await, state, "call {calls}, once: {once}");
            if once {
                // A failed compaction is no reason to refuse writes. If the failure was for this one, nobody knows what
                // became of it.
                let mut deleted = state.clone();
                deleted.retain(|id, _| ![20, 21].contains(id));
                match delete(&store, table, &[20, 21]).await {
                    Ok(_) => state = deleted,
                    Err(_) => uncertain = Some(deleted),
                }
                assert_eq!(contents(&store.snapshot(), table).await, state, "call {calls}");
                let _ = store.close().await;
            }
            drop(store);
            for (how, left) in crashes(&files, calls) {
                let found = recovered(&left).await.unwrap();
                if uncertain.as_ref() != Some(&found) {
                    assert_eq!(found, state, "call {calls}, once: {once}, {how}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_nothing_refers_to_is_listed_and_removed_by_the_next_start() {
    let (pristine, _) = sound_store().await;
    let files = pristine.after_power_cut();
    let segment = files.paths().into_iter().map(|(path, _)| path).find(|path| path.starts_with("segments/")).unwrap();
    let left_over = "segments/1/000000009999.parquet";
    files.copy_file(&segment, left_over);
    let report = check(options(&files)).await.unwrap();
    assert_eq!((report.findings, report.left_over), (vec![], vec![left_over.to_owned()]));
    let store = open(&files).await;
    store.close().await.unwrap();
    assert_eq!(check(options(&files)).await.unwrap().left_over, Vec::<String>::new());
}

/// Two tables, the second of which says that it refers to the first; the store itself does not see to it.
async fn referring_store() -> (MemoryFiles, Store, TableId, TableId) {
    let (files, store, parent) = store_with(keyed("parent")).await;
    let mut transaction = store.begin();
    let foreign_key = ForeignKey {
        name: "child_parent_fkey".into(),
        columns: vec![0],
        parent,
        parent_columns: vec![0],
        match_full: false,
        on_delete: ReferenceAction::default(),
        on_update: ReferenceAction::default(),
        deferrable: false,
        initially_deferred: false,
        not_validated: false,
    };
    let child = NewTable { foreign_keys: vec![foreign_key], ..keyed("child") };
    let child = transaction.create_table(child).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    (files, store, parent, child)
}

#[tokio::test]
async fn rows_without_a_parent_are_found_wherever_they_are() {
    let (files, store, parent, child) = referring_store().await;
    insert(&store, parent, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]).await.unwrap();
    insert(&store, child, &[(1, "of a"), (2, "of b")]).await.unwrap();
    store.flush().await.unwrap();
    insert(&store, child, &[(3, "of c")]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(check(options(&files)).await.unwrap().findings, []);

    let store = open(&files).await;
    delete(&store, parent, &[2, 3]).await.unwrap();
    insert(&store, child, &[(7, "of nobody")]).await.unwrap();
    store.close().await.unwrap();
    let report = check(options(&files)).await.unwrap();
    let places: Vec<(&str, bool)> = report
        .findings
        .iter()
        .map(|finding| (finding.file.split('/').next().unwrap(), finding.detail.contains("child_parent_fkey")))
        .collect();
    assert_eq!(places, [("segments", true), ("log", true)], "{:?}", report.findings);
    assert!(report.findings[0].detail.starts_with("1 rows") && report.findings[1].detail.starts_with("2 rows"));
}

#[tokio::test]
async fn a_writer_that_lost_its_lock_is_fenced_off() {
    let (files, stale, table) = store_with(keyed("t")).await;
    insert(&stale, table, &[(1, "a")]).await.unwrap();
    files.break_lock();
    let store = open(&files).await;
    insert(&store, table, &[(2, "b")]).await.unwrap();
    assert!(matches!(stale.flush().await, Err(Error::Poisoned { .. })), "its manifest's number is taken");
    assert!(matches!(insert(&stale, table, &[(3, "c")]).await, Err(Error::Poisoned { .. })));
    store.flush().await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "a"), (2, "b")]));
    store.close().await.unwrap();
    assert_eq!(check(options(&files)).await.unwrap().findings, []);
}

/// By then the number that its next manifest would have is free again.
#[tokio::test]
async fn a_writer_that_lost_its_lock_long_ago_is_fenced_off_too() {
    let (files, stale, table) = store_with(keyed("t")).await;
    for round in 0..3 {
        let rows: Vec<(i64, &str)> = (0..40).map(|row| (row * 4 + round, "flushed")).collect();
        insert(&stale, table, &rows).await.unwrap();
        stale.flush().await.unwrap();
    }
    // Worth a merge, and nothing that the other one has to write out.
    delete(&stale, table, &[16, 17, 18]).await.unwrap();
    let state = contents(&stale.snapshot(), table).await;
    files.break_lock();
    let store = open(&files).await;
    let mut transaction = store.begin();
    let other = transaction.create_table(keyed("u")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    for id in 0..3 {
        insert(&store, other, &[(id, "later")]).await.unwrap();
        store.flush().await.unwrap();
    }
    let merged = stale.compact().await;
    assert!(matches!(merged, Err(Error::Poisoned { .. })), "{merged:?}");
    assert!(stale.check_writable().is_err(), "it acknowledges nothing more");
    drop(stale);
    assert_eq!(contents(&store.snapshot(), table).await, state);
    assert_eq!(recovered(&files.after_kill()).await.as_ref(), Some(&state), "no file was taken away");
}

#[tokio::test]
async fn a_flush_that_failed_is_not_tried_again_once_the_log_is_poisoned() {
    let (files, stale, table) = store_with(keyed("t")).await;
    insert(&stale, table, &[(1, "a")]).await.unwrap();
    files.fill(Some("segments"));
    assert!(matches!(stale.flush().await, Err(Error::Io { .. })));
    files.fill(None);
    files.break_lock();
    assert!(matches!(insert(&stale, table, &[(2, "not")]).await, Err(Error::Poisoned { .. })));
    let before = files.paths();
    assert!(matches!(stale.flush().await, Err(Error::Poisoned { .. })));
    assert_eq!(files.paths(), before, "they belong to whoever was let in");
    assert_eq!(contents(&stale.snapshot(), table).await, map(&[(1, "a")]), "reads go on");
}

#[tokio::test]
async fn a_writer_whose_lock_is_gone_acknowledges_nothing_more() {
    let (files, stale, table) = store_with(keyed("t")).await;
    insert(&stale, table, &[(1, "a")]).await.unwrap();
    files.break_lock();
    let refused = insert(&stale, table, &[(2, "not")]).await;
    assert!(matches!(&refused, Err(Error::Poisoned { reason }) if reason.contains("LOCK")), "{refused:?}");
    assert_eq!(contents(&stale.snapshot(), table).await, map(&[(1, "a")]), "reads go on");
}

#[tokio::test]
async fn a_writer_whose_lock_is_gone_removes_no_file_of_those_who_came_after_it() {
    let (files, stale, table) = store_with(keyed("t")).await;
    let mut never_committed = stale.begin();
    load(&mut never_committed, table, &[(1, "not")]).await.unwrap();
    files.break_lock();
    let store = open(&files).await;
    // Under the name that the other load's file had.
    let mut transaction = store.begin();
    load(&mut transaction, table, &[(2, "b")]).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    drop(never_committed);
    for _ in 0..50 {
        // Its background takes what is to be removed and other jobs in any order.
        assert!(matches!(stale.flush().await, Err(Error::Poisoned { .. })));
    }
    assert_eq!(recovered(&files.after_kill()).await, Some(map(&[(2, "b")])));
}

#[tokio::test]
async fn what_a_stale_writer_still_logs_is_nothing_to_those_who_came_after_it() {
    let (files, stale, table) = store_with(keyed("t")).await;
    insert(&stale, table, &[(1, "a")]).await.unwrap();
    files.break_lock();
    let store = open(&files).await;
    // It reaches the log file that the store above has read and nobody is told so.
    let refused = insert(&stale, table, &[(2, "of nobody")]).await;
    assert!(matches!(refused, Err(Error::Poisoned { .. })));
    insert(&store, table, &[(2, "b")]).await.unwrap();
    update(&store, table, &[1], &[(1, "newer")]).await.unwrap();
    let state = map(&[(1, "newer"), (2, "b")]);
    assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state));
    store.close().await.unwrap();
    for _ in 0..3 {
        assert_eq!(check(options(&files)).await.unwrap().findings, []);
        assert_eq!(recovered(&files.after_kill()).await.as_ref(), Some(&state));
        open(&files).await.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_listed_fails_a_flush_and_nothing_else() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    for round in 0..3 {
        let (frozen, newer) = (format!("frozen {round}"), format!("newer {round}"));
        // Otherwise there is nothing to write out.
        update(&store, table, &[2], &[(2, &frozen)]).await.unwrap();
        files.fail_lists(u64::MAX);
        let failed = store.flush().await;
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        update(&store, table, &[1], &[(1, &newer)]).await.unwrap();
        let state = map(&[(1, &newer), (2, &frozen)]);
        assert_eq!(contents(&store.snapshot(), table).await, state);
        files.fail_lists(0);
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state), "without a flush");
        // For a moment only: nobody learns of it.
        files.fail_lists(2);
        store.flush().await.unwrap();
        files.fail_lists(0);
        assert_eq!(contents(&store.snapshot(), table).await, state);
        assert_eq!(recovered(&files.after_power_cut()).await.as_ref(), Some(&state), "flushed");
    }
    assert_eq!(left_over(&files, &store).await, Vec::<String>::new());
    store.close().await.unwrap();
    assert_eq!(check(options(&files)).await.unwrap().findings, []);
}

#[tokio::test]
async fn one_failed_call_after_which_the_disk_is_well_again_loses_nothing() {
    let total = {
        let files = MemoryFiles::new();
        run_history(&open(&files).await, |_, _| {}).await.unwrap();
        files.changes()
    };
    for calls in 0..total {
        let files = MemoryFiles::new();
        files.fail_once_after(calls);
        let mut states: Vec<BTreeMap<i64, String>> = Vec::new();
        if let Ok(store) = Store::open(options(&files)).await {
            let _ = run_history(&store, |_, state| states.push(state)).await;
            let _ = store.close().await;
        }
        // The process is restarted on the same disk, with all that the failed call had done.
        files.break_lock();
        files.fail_once_after(u64::MAX / 2);
        let found = recovered(&files).await.unwrap_or_default();
        let expected = states.last().cloned().unwrap_or_default();
        assert!(found == expected || is_next_state(states.len(), &found).await, "failure at call {calls}: {found:?}");
    }
}

/// Files of segments that nobody needs once the background has removed what it was told to.
pub(crate) async fn left_over(files: &MemoryFiles, store: &Store) -> Vec<String> {
    let mut left = Vec::new();
    for _ in 0..200 {
        // What the background is told to remove, it removes before it takes a job sent later.
        store.flush().await.unwrap();
        left = check(options(&files.after_kill())).await.unwrap().left_over;
        if left.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_dropped_while_it_is_written_out_or_merged_leaves_no_files() {
    for round in 0..60 {
        let (files, store, table, _) = store_to_compact().await;
        let background = store.clone();
        let working = tokio::spawn(async move {
            match round % 2 {
                0 => background.flush().await,
                _ => background.compact().await,
            }
        });
        for _ in 0..round / 4 {
            tokio::task::yield_now().await;
        }
        let mut transaction = store.begin();
        transaction.drop_table(table).unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        working.await.unwrap().unwrap();
        assert_eq!(left_over(&files, &store).await, Vec::<String>::new(), "round {round}");
        assert_eq!(open(&files.after_power_cut()).await.catalog().tables().count(), 0);
    }
}

#[tokio::test]
async fn a_load_whose_commit_is_refused_leaves_no_files() {
    let (files, store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    let other = transaction.create_table(keyed("other")).unwrap().id;
    load(&mut transaction, other, &[(1, "a")]).await.unwrap();
    transaction.require_unchanged(table);
    insert(&store, table, &[(1, "in the way")]).await.unwrap();
    assert!(matches!(transaction.commit(Durability::Sync).await, Err(Error::Conflict { .. })));
    assert_eq!(left_over(&files, &store).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_given_up_while_its_file_is_written_leaves_none() {
    let (files, store, table) = store_with(keyed("t")).await;
    store.close().await.unwrap();
    let store = Store::open(StoreOptions { column_cache_bytes: 1 << 20, ..options(&files) }).await.unwrap();
    let transaction = store.begin();
    let mut bulk = transaction.bulk_insert(table).unwrap();
    let held = files.hold_syncs();
    let text = "x".repeat(1000);
    for first in 0..5 {
        let batch: Vec<(i64, &str)> = (first * 1000..(first + 1) * 1000).map(|id| (id, text.as_str())).collect();
        bulk.write(rows(&batch)).await.unwrap();
    }
    let segment_files = || files.paths().iter().filter(|(path, _)| path.starts_with("segments/")).count();
    until("a segment that is being written", || segment_files() > 0).await;
    drop((bulk, transaction));
    drop(held);
    until("no file left", || segment_files() == 0).await;
    assert_eq!(contents(&store.snapshot(), table).await.len(), 0);
    store.close().await.unwrap();
    let report = check(options(&files)).await.unwrap();
    assert_eq!((report.findings, report.left_over), (vec![], vec![]));
}
