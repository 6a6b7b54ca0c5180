//! Transactions with locks: who waits, what they find afterwards, and snapshots that move under pending changes.

use std::time::Duration;

use crate::common::*;
use rustydb_storage::{
    Deferral, Durability, Error, Isolation, LockMode, LockWait, MemoryFiles, NewIndex, NewTable, RowLock, Store,
    TableId, Transaction, TransactionOptions,
};

async fn begin(store: &Store, isolation: Isolation) -> Transaction {
    store.begin_with(TransactionOptions { isolation, ..TransactionOptions::default() }).await
}

#[tokio::test]
async fn a_second_writer_waits_and_then_conflicts() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut first = begin(&store, Isolation::Snapshot).await;
    let mut second = begin(&store, Isolation::Snapshot).await;
    first.update(table, &keys(&[1]), &rows(&[(1, "b")])).await.unwrap();
    let waiting = tokio::spawn(async move {
        let result = second.update(table, &keys(&[1]), &rows(&[(1, "c")])).await;
        (second, result)
    });
    first.commit(Durability::Sync).await.unwrap();
    let (second, result) = waiting.await.unwrap();
    assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
    second.rollback();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "b")]));
}

#[tokio::test]
async fn a_waiter_whose_blocker_rolls_back_goes_on() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut first = begin(&store, Isolation::Snapshot).await;
    let mut second = begin(&store, Isolation::Snapshot).await;
    first.delete(table, &keys(&[1])).await.unwrap();
    let waiting = tokio::spawn(async move {
        second.update(table, &keys(&[1]), &rows(&[(1, "c")])).await?;
        second.commit(Durability::Sync).await
    });
    first.rollback();
    waiting.await.unwrap().unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "c")]));
}

#[tokio::test]
async fn a_refreshed_transaction_writes_on_top_of_what_was_committed_meanwhile() {
    for flush_first in [false, true] {
        let (_, store, table) = store_with(keyed("t")).await;
        insert(&store, table, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]).await.unwrap();
        if flush_first {
            store.flush().await.unwrap();
        }
        let mut moving = begin(&store, Isolation::ReadCommitted).await;
        moving.update(table, &keys(&[1]), &rows(&[(1, "own")])).await.unwrap();
        moving.delete(table, &keys(&[4])).await.unwrap();
        update(&store, table, &[2], &[(2, "theirs")]).await.unwrap();
        // Moves the rows under the pending changes to a segment.
        store.flush().await.unwrap();
        insert(&store, table, &[(9, "new")]).await.unwrap();
        assert_eq!(contents(&moving.view(), table).await.get(&9), None, "not before it is refreshed");
        moving.refresh().await.unwrap();
        let expected = map(&[(1, "own"), (2, "theirs"), (3, "c"), (9, "new")]);
        assert_eq!(contents(&moving.view(), table).await, expected, "flushed first: {flush_first}");
        moving.update(table, &keys(&[2, 3]), &rows(&[(2, "mine"), (3, "mine")])).await.unwrap();
        moving.insert(table, &rows(&[(4, "again")])).await.unwrap();
        moving.commit(Durability::Sync).await.unwrap();
        let expected = map(&[(1, "own"), (2, "mine"), (3, "mine"), (4, "again"), (9, "new")]);
        assert_eq!(contents(&store.snapshot(), table).await, expected, "flushed first: {flush_first}");
    }
}

#[tokio::test]
async fn a_key_inserted_meanwhile_is_a_duplicate_or_a_reason_to_run_again() {
    let (_, store, table) = store_with(keyed("t")).await;
    let mut snapshot = begin(&store, Isolation::Snapshot).await;
    let mut moving = begin(&store, Isolation::ReadCommitted).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let result = snapshot.insert(table, &rows(&[(1, "b")])).await;
    assert!(matches!(result, Err(Error::DuplicateKey { .. })), "{result:?}");
    snapshot.rollback();
    let result = moving.insert(table, &rows(&[(1, "b")])).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
    moving.refresh().await.unwrap();
    let result = moving.insert(table, &rows(&[(1, "b")])).await;
    assert!(matches!(result, Err(Error::DuplicateKey { .. })), "{result:?}");
    delete(&store, table, &[1]).await.unwrap();
    let result = moving.insert(table, &rows(&[(1, "b")])).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "the row is gone: {result:?}");
}

#[tokio::test]
async fn key_share_lets_changes_of_other_columns_through_and_keeps_the_row() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut child = begin(&store, Isolation::Snapshot).await;
    child.lock_rows(table, &keys(&[1]), RowLock::KeyShare, None).await.unwrap();
    let mut parent = begin(&store, Isolation::Snapshot).await;
    parent.set_lock_wait(LockWait::NoWait);
    parent.update(table, &keys(&[1]), &rows(&[(1, "b")])).await.unwrap();
    let result = parent.delete(table, &keys(&[1])).await;
    assert!(matches!(result, Err(Error::LockNotAvailable { .. })), "{result:?}");
    let result = parent.update(table, &keys(&[1]), &rows(&[(2, "b")])).await;
    assert!(matches!(result, Err(Error::LockNotAvailable { .. })), "a new key: {result:?}");
    parent.commit(Durability::Sync).await.unwrap();
    child.lock_rows(table, &keys(&[1]), RowLock::KeyShare, None).await.unwrap();
    let result = child.lock_rows(table, &keys(&[1]), RowLock::Share, None).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "it has changed: {result:?}");
}

#[tokio::test]
async fn table_locks_keep_writers_out_and_have_a_time_limit() {
    let (_, store, table) = store_with(keyed("t")).await;
    let mut locker = begin(&store, Isolation::Snapshot).await;
    locker.lock_table(table, LockMode::Share, None).await.unwrap();
    let mut writer = begin(&store, Isolation::Snapshot).await;
    writer.set_lock_wait(LockWait::Wait(Some(Duration::from_millis(5))));
    let result = writer.insert(table, &rows(&[(1, "a")])).await;
    assert!(matches!(result, Err(Error::LockTimeout { .. })), "{result:?}");
    locker.rollback();
    writer.insert(table, &rows(&[(1, "a")])).await.unwrap();
    writer.commit(Durability::Sync).await.unwrap();
}

#[tokio::test]
async fn going_back_to_a_mark_can_give_later_locks_back() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    let mut first = begin(&store, Isolation::Snapshot).await;
    first.delete(table, &keys(&[1])).await.unwrap();
    let mark = first.mark();
    first.delete(table, &keys(&[2])).await.unwrap();
    let mut second = begin(&store, Isolation::Snapshot).await;
    second.set_lock_wait(LockWait::NoWait);
    assert!(second.delete(table, &keys(&[2])).await.is_err());
    first.undo_to(&mark);
    first.release_locks_since(&mark);
    second.delete(table, &keys(&[2])).await.unwrap();
    assert!(second.delete(table, &keys(&[1])).await.is_err());
    first.commit(Durability::Sync).await.unwrap();
    second.commit(Durability::Sync).await.unwrap();
    assert!(contents(&store.snapshot(), table).await.is_empty());
}

#[tokio::test]
async fn two_rows_that_want_the_same_unique_value_wait_for_each_other() {
    let (_, store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    let index = NewIndex::new("t_name", vec![1], true);
    transaction.create_index(table, index).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    let mut first = begin(&store, Isolation::ReadCommitted).await;
    let mut second = begin(&store, Isolation::ReadCommitted).await;
    first.insert(table, &rows(&[(1, "a")])).await.unwrap();
    second.set_lock_wait(LockWait::NoWait);
    let result = second.insert(table, &rows(&[(2, "a")])).await;
    assert!(matches!(result, Err(Error::LockNotAvailable { .. })), "{result:?}");
    second.insert(table, &rows(&[(3, "c")])).await.unwrap();
    first.commit(Durability::Sync).await.unwrap();
    let result = second.insert(table, &rows(&[(2, "a")])).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "to be run again: {result:?}");
    second.refresh().await.unwrap();
    let result = second.insert(table, &rows(&[(2, "a")])).await;
    assert!(matches!(result, Err(Error::DuplicateKey { .. })), "{result:?}");
    delete(&store, table, &[1]).await.unwrap();
    let result = second.insert(table, &rows(&[(2, "a")])).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "it is free by now: {result:?}");
    second.refresh().await.unwrap();
    second.insert(table, &rows(&[(2, "a")])).await.unwrap();
    second.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(2, "a"), (3, "c")]));
}

/// Each reads both rows and changes one.
async fn write_skew(isolation: Isolation) -> (Result<u64, Error>, Result<u64, Error>) {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "on"), (2, "on")]).await.unwrap();
    let mut first = begin(&store, isolation).await;
    let mut second = begin(&store, isolation).await;
    for (transaction, own) in [(&mut first, 1), (&mut second, 2)] {
        assert_eq!(contents(&transaction.view(), table).await.len(), 2);
        transaction.update(table, &keys(&[own]), &rows(&[(own, "off")])).await.unwrap();
    }
    let first = first.commit(Durability::Sync).await;
    (first, second.commit(Durability::Sync).await)
}

#[tokio::test]
async fn write_skew_is_possible_on_snapshots_and_not_when_serializable() {
    let (first, second) = write_skew(Isolation::Snapshot).await;
    assert!(first.is_ok() && second.is_ok());
    let (first, second) = write_skew(Isolation::Serializable).await;
    assert!(first.is_ok());
    assert!(matches!(second, Err(Error::Unserializable)), "{second:?}");
}

#[tokio::test]
async fn a_deferrable_reader_waits_for_the_writers_and_then_remembers_nothing() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let options = TransactionOptions {
        isolation: Isolation::Serializable,
        read_only: true,
        deferrable: true,
        ..TransactionOptions::default()
    };
    let mut writer = begin(&store, Isolation::Serializable).await;
    // Something that the writer does not see, so that its snapshot is older than the reader's.
    insert(&store, table, &[(2, "b")]).await.unwrap();
    let other = store.clone();
    let waiting = tokio::spawn(async move { other.begin_with(options).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    writer.update(table, &keys(&[1]), &rows(&[(1, "c")])).await.unwrap();
    writer.commit(Durability::Sync).await.unwrap();
    let reader = waiting.await.unwrap();
    assert!(!reader.view().remembers_reads());
}

#[tokio::test]
async fn a_lock_is_free_before_the_disk_has_answered_and_commits_become_visible_in_order() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "x")]).await.unwrap();
    let first = begin(&store, Isolation::Snapshot).await;
    let second = begin(&store, Isolation::Snapshot).await;
    let held = files.hold_syncs();
    let change = |mut transaction: Transaction, value: &'static str| async move {
        loop {
            transaction.expect_reruns(true);
            match transaction.update(table, &keys(&[1]), &rows(&[(1, value)])).await {
                Err(Error::Conflict { .. }) => transaction.refresh().await.unwrap(),
                updated => break updated.map(|_| transaction),
            }
        }
    };
    let one = tokio::spawn(change(first, "b").await.unwrap().commit(Durability::Sync));
    // Gets the lock although the first commit is on its way to the disk, and goes on from its row.
    let second = change(second, "c").await.unwrap();
    let two = tokio::spawn(second.commit(Durability::Sync));
    let third = change(begin(&store, Isolation::Snapshot).await, "d").await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "a"), (2, "x")]), "readers see what is durable");
    assert_eq!(contents(&third.view(), table).await, map(&[(1, "d"), (2, "x")]));
    assert!(!one.is_finished() && !two.is_finished());
    let left = files.after_power_cut();
    drop(held);
    assert!(one.await.unwrap().unwrap() < two.await.unwrap().unwrap());
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "c"), (2, "x")]));
    third.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "d"), (2, "x")]));
    let cut = open(&left).await;
    assert_eq!(contents(&cut.snapshot(), table).await, map(&[(1, "a"), (2, "x")]));
}

#[tokio::test]
async fn a_transaction_without_changes_ends_after_what_it_has_seen_is_durable() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut writer = begin(&store, Isolation::Snapshot).await;
    let mut locker = begin(&store, Isolation::ReadCommitted).await;
    let mut inserter = begin(&store, Isolation::ReadCommitted).await;
    let reader = begin(&store, Isolation::Snapshot).await;
    let held = files.hold_syncs();
    writer.update(table, &keys(&[1]), &rows(&[(1, "b")])).await.unwrap();
    writer.insert(table, &rows(&[(2, "new")])).await.unwrap();
    let written = tokio::spawn(writer.commit(Durability::Sync));
    let locked = locker.lock_rows(table, &keys(&[1]), RowLock::Update, None).await;
    assert!(matches!(locked, Err(Error::Conflict { .. })), "{locked:?}");
    locker.refresh().await.unwrap();
    assert_eq!(contents(&locker.view(), table).await, map(&[(1, "b"), (2, "new")]));
    let taken = inserter.insert(table, &rows(&[(2, "mine")])).await;
    assert!(matches!(taken, Err(Error::Conflict { .. } | Error::DuplicateKey { .. })), "{taken:?}");
    let ends = [locker, inserter].map(|transaction| tokio::spawn(transaction.commit(Durability::Sync)));
    assert_eq!(reader.commit(Durability::Sync).await.unwrap(), store.snapshot().timestamp(), "it has seen nothing new");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!written.is_finished() && ends.iter().all(|end| !end.is_finished()));
    drop(held);
    written.await.unwrap().unwrap();
    for end in ends {
        end.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_parent_deleted_by_a_commit_that_is_not_durable_has_no_children_any_more() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    let mut deleter = begin(&store, Isolation::Snapshot).await;
    let mut child = begin(&store, Isolation::Snapshot).await;
    let held = files.hold_syncs();
    deleter.delete(table, &keys(&[1])).await.unwrap();
    deleter.insert(table, &rows(&[(3, "c")])).await.unwrap();
    let deleted = tokio::spawn(deleter.commit(Durability::Sync));
    // Waits for the lock, and then looks at the newest state, as checks of foreign keys do.
    let locked = child.lock_rows(table, &keys(&[1]), RowLock::KeyShare, None).await;
    assert!(matches!(locked, Err(Error::Conflict { .. })), "{locked:?}");
    assert_eq!(contents(&child.newest_view().await.unwrap(), table).await, map(&[(2, "b"), (3, "c")]));
    drop(held);
    deleted.await.unwrap().unwrap();
}

/// With a unique index of the names.
async fn store_with_names(deferral: Deferral) -> (MemoryFiles, Store, TableId) {
    let index = NewIndex { deferral, ..NewIndex::new("t_name", vec![1], true) };
    store_with(NewTable { indexes: vec![index], ..keyed("t") }).await
}

/// Waits until a transaction waits for a lock, which a task is expected to do.
async fn until_waiting<T>(store: &Store, task: &tokio::task::JoinHandle<T>) {
    while store.lock_waits() == 0 {
        assert!(!task.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_unique_value_that_somebody_is_giving_up_is_waited_for() {
    for isolation in [Isolation::ReadCommitted, Isolation::Snapshot] {
        for (deletes, inserts, commits, flushed) in [
            (true, true, true, false),
            (false, true, true, true),
            (true, false, true, true),
            (false, true, false, false),
        ] {
            let (_, store, table) = store_with_names(Deferral::Never).await;
            insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
            if flushed {
                store.flush().await.unwrap();
            }
            let (mut giver, mut taker) = (begin(&store, isolation).await, begin(&store, isolation).await);
            if deletes {
                giver.delete(table, &keys(&[1])).await.unwrap();
            } else {
                giver.update(table, &keys(&[1]), &rows(&[(1, "c")])).await.unwrap();
            }
            let waiting = tokio::spawn(async move {
                let taken = match inserts {
                    true => taker.insert(table, &rows(&[(3, "a")])).await,
                    false => taker.update(table, &keys(&[2]), &rows(&[(2, "a")])).await,
                };
                (taker, taken)
            });
            until_waiting(&store, &waiting).await;
            if commits {
                giver.commit(Durability::Sync).await.unwrap();
            } else {
                giver.rollback();
            }
            let (mut taker, taken) = waiting.await.unwrap();
            if !commits {
                assert!(matches!(taken, Err(Error::DuplicateKey { .. })), "{taken:?}");
                // The row in the way is locked no longer.
                let mut other = begin(&store, isolation).await;
                other.set_lock_wait(LockWait::NoWait);
                other.delete(table, &keys(&[1])).await.unwrap();
                continue;
            }
            assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
            if isolation == Isolation::ReadCommitted {
                taker.refresh().await.unwrap();
                taker.insert(table, &rows(&[(3, "a")])).await.unwrap();
                taker.commit(Durability::Sync).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_deferred_value_that_somebody_is_giving_up_is_waited_for_at_the_commit() {
    for commits in [true, false] {
        let (_, store, table) = store_with_names(Deferral::InitiallyDeferred).await;
        insert(&store, table, &[(1, "a")]).await.unwrap();
        let mut giver = begin(&store, Isolation::ReadCommitted).await;
        let mut taker = begin(&store, Isolation::ReadCommitted).await;
        giver.delete(table, &keys(&[1])).await.unwrap();
        taker.insert(table, &rows(&[(2, "a")])).await.unwrap();
        let waiting = tokio::spawn(taker.commit(Durability::Sync));
        until_waiting(&store, &waiting).await;
        if commits {
            giver.commit(Durability::Sync).await.unwrap();
            waiting.await.unwrap().unwrap();
        } else {
            giver.rollback();
            let ended = waiting.await.unwrap();
            assert!(matches!(ended, Err(Error::DuplicateKey { .. })), "{ended:?}");
        }
    }
}

/// Whoever has a row `FOR UPDATE` may be about to remove it; until that is done, its key and its values are taken.
#[tokio::test]
async fn a_key_or_a_value_of_a_row_that_is_only_locked_is_taken_at_once() {
    for isolation in [Isolation::ReadCommitted, Isolation::Snapshot] {
        let (_, store, table) = store_with_names(Deferral::Never).await;
        insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
        let mut locker = begin(&store, isolation).await;
        locker.lock_rows(table, &keys(&[1]), RowLock::Update, None).await.unwrap();
        for is_removed in [false, true] {
            if is_removed {
                locker.delete(table, &keys(&[1])).await.unwrap();
            }
            for row in [(1, "new"), (3, "a")] {
                let mut other = begin(&store, isolation).await;
                other.set_lock_wait(LockWait::Wait(Some(Duration::from_millis(5))));
                match (other.insert(table, &rows(&[row])).await, is_removed) {
                    (Err(Error::DuplicateKey { .. }), false) | (Err(Error::LockTimeout { .. }), true) => {}
                    (result, _) => panic!("{row:?}, removed: {is_removed}: {result:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_change_of_a_unique_value_is_a_change_of_a_key() {
    for flushed in [false, true] {
        let (_, store, table) = store_with_names(Deferral::Never).await;
        insert(&store, table, &[(1, "a")]).await.unwrap();
        if flushed {
            store.flush().await.unwrap();
        }
        for (name, assigned, is_free) in [("a", true, true), ("b", true, false), ("a", false, true)] {
            let mut writer = begin(&store, Isolation::Snapshot).await;
            writer.update_assigned(table, &keys(&[1]), &rows(&[(1, name)]), |_| assigned).await.unwrap();
            let mut other = begin(&store, Isolation::Snapshot).await;
            let locked = other.lock_rows(table, &keys(&[1]), RowLock::KeyShare, Some(LockWait::NoWait)).await;
            match is_free {
                true => locked.unwrap(),
                false => assert!(matches!(locked, Err(Error::LockNotAvailable { .. })), "{locked:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_key_or_a_value_that_was_freed_since_the_snapshot_is_a_conflict_and_an_own_one_a_duplicate() {
    let (_, store, table) = store_with_names(Deferral::Never).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    let mut snapshot = begin(&store, Isolation::Snapshot).await;
    snapshot.insert(table, &rows(&[(5, "own")])).await.unwrap();
    delete(&store, table, &[1]).await.unwrap();
    store.flush().await.unwrap();
    for row in [(1, "new"), (7, "a")] {
        let result = snapshot.insert(table, &rows(&[row])).await;
        assert!(matches!(result, Err(Error::Conflict { .. })), "{row:?}: {result:?}");
    }
    for row in [(2, "new"), (7, "b"), (5, "new"), (7, "own")] {
        let result = snapshot.insert(table, &rows(&[row])).await;
        assert!(matches!(result, Err(Error::DuplicateKey { .. })), "{row:?}: {result:?}");
    }
}

#[tokio::test]
async fn key_share_shows_a_row_as_it_is_and_a_reference_only_wants_it_to_be_there() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    let mut moving = begin(&store, Isolation::ReadCommitted).await;
    let mut snapshot = begin(&store, Isolation::Snapshot).await;
    update(&store, table, &[1], &[(1, "c")]).await.unwrap();
    let result = moving.lock_rows(table, &keys(&[1]), RowLock::KeyShare, None).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "to be run again: {result:?}");
    moving.lock_rows(table, &keys(&[1]), RowLock::Referenced, None).await.unwrap();
    snapshot.lock_rows(table, &keys(&[1]), RowLock::KeyShare, None).await.unwrap();
    delete(&store, table, &[2]).await.unwrap();
    for transaction in [&mut moving, &mut snapshot] {
        let result = transaction.lock_rows(table, &keys(&[2]), RowLock::Referenced, None).await;
        assert!(matches!(result, Err(Error::Conflict { .. })), "it is gone: {result:?}");
    }
}

#[tokio::test]
async fn a_table_that_others_have_changed_is_written_to_again_or_not_committed() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut moving = begin(&store, Isolation::ReadCommitted).await;
    let mut snapshot = begin(&store, Isolation::Snapshot).await;
    let mut other = store.begin();
    other.drop_table(table).unwrap();
    let successor = other.create_table(keyed("t")).unwrap().id;
    other.commit(Durability::Sync).await.unwrap();
    let result = moving.insert(table, &rows(&[(2, "b")])).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "to be run again: {result:?}");
    let result = moving.update(table, &keys(&[1]), &rows(&[(1, "b")])).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "to be run again: {result:?}");
    moving.refresh().await.unwrap();
    moving.insert(successor, &rows(&[(2, "b")])).await.unwrap();
    moving.commit(Durability::Sync).await.unwrap();
    snapshot.insert(table, &rows(&[(3, "c")])).await.unwrap();
    let result = snapshot.commit(Durability::Sync).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
    assert_eq!(contents(&store.snapshot(), successor).await, map(&[(2, "b")]));
}

/// A transaction that has put a row into a table goes on with another statement after somebody has changed the table.
#[tokio::test]
async fn tables_that_change_under_pending_rows_are_noticed_before_the_commit_is_logged() {
    let too_long = "x".repeat(5000);
    for (change, name) in [("drop", "a"), ("unique", "a"), ("index", too_long.as_str()), ("harmless", "b")] {
        let (_, store, table) = store_with(keyed("t")).await;
        insert(&store, table, &[(1, "a")]).await.unwrap();
        let mut moving = begin(&store, Isolation::ReadCommitted).await;
        moving.insert(table, &rows(&[(2, name)])).await.unwrap();
        let mut other = store.begin();
        if change == "drop" {
            other.drop_table(table).unwrap();
        } else {
            other.create_index(table, NewIndex::new("t_name", vec![1], change != "index")).await.unwrap();
        }
        other.commit(Durability::Sync).await.unwrap();
        moving.refresh().await.unwrap();
        let ended = moving.commit(Durability::Sync).await;
        match change {
            "drop" => assert!(matches!(ended, Err(Error::Conflict { .. })), "{ended:?}"),
            "unique" => assert!(matches!(ended, Err(Error::DuplicateKey { .. })), "{ended:?}"),
            "index" => assert!(ended.is_err(), "it is too long for the index"),
            _ => assert!(ended.is_ok(), "{ended:?}"),
        }
        // The store goes on.
        let mut next = store.begin();
        next.create_table(keyed("u")).unwrap();
        next.commit(Durability::Sync).await.unwrap();
    }
}
