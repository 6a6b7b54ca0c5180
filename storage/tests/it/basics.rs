//! What each call of the store promises, one at a time.

use std::sync::Arc;

use crate::common::*;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, FixedSizeBinaryBuilder, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rustydb_storage::{
    CompareOp, Durability, Error, Filter, ForeignKey, NewTable, ReadView, ReferenceAction, ScanRequest, Store, TableId,
    canonical_type, check,
};

#[tokio::test]
async fn committed_rows_are_read_back_from_the_memtable_and_from_segments() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(2, "b"), (1, "a")]).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "a"), (2, "b")]));
    store.flush().await.unwrap();
    insert(&store, table, &[(3, "c")]).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "a"), (2, "b"), (3, "c")]));
}

#[tokio::test]
async fn uncommitted_changes_are_seen_by_their_own_transaction_only() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    store.flush().await.unwrap();
    insert(&store, table, &[(3, "c")]).await.unwrap();
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(4, "d")])).await.unwrap();
    transaction.delete(table, &keys(&[1, 3, 99])).await.unwrap();
    transaction.update(table, &keys(&[2]), &rows(&[(20, "B")])).await.unwrap();
    assert_eq!(contents(&transaction.view(), table).await, map(&[(4, "d"), (20, "B")]));
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "a"), (2, "b"), (3, "c")]));
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(4, "d"), (20, "B")]));
}

#[tokio::test]
async fn a_rolled_back_transaction_leaves_nothing() {
    let (files, store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(1, "a")])).await.unwrap();
    load(&mut transaction, table, &[(2, "b")]).await.unwrap();
    transaction.rollback();
    assert!(contents(&store.snapshot(), table).await.is_empty());
    store.close().await.unwrap();
    drop(store);
    let store = open(&files).await;
    assert!(contents(&store.snapshot(), table).await.is_empty());
    assert!(files.paths().iter().all(|(path, _)| !path.starts_with("segments")), "{:?}", files.paths());
}

#[tokio::test]
async fn a_snapshot_does_not_move_through_commits_and_flushes() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b"), (3, "c")]).await.unwrap();
    store.flush().await.unwrap();
    let in_segment = store.snapshot();
    update(&store, table, &[2], &[(2, "B")]).await.unwrap();
    let in_memory = store.snapshot();
    delete(&store, table, &[1, 2]).await.unwrap();
    store.flush().await.unwrap();
    insert(&store, table, &[(1, "again")]).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(contents(&in_segment, table).await, map(&[(1, "a"), (2, "b"), (3, "c")]));
    assert_eq!(contents(&in_memory, table).await, map(&[(1, "a"), (2, "B"), (3, "c")]));
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "again"), (3, "c")]));
}

#[tokio::test]
async fn duplicate_keys_are_refused_wherever_the_first_one_is() {
    let (_, store, table) = store_with(keyed("t")).await;
    let duplicate = |result: Result<u64, Error>, value: &str| match result {
        Err(Error::DuplicateKey { constraint, columns, key, .. }) => {
            assert_eq!(
                (constraint.as_str(), columns, key),
                ("t_pkey", vec!["id".to_string()], vec![value.to_string()])
            );
        }
        other => panic!("{other:?}"),
    };
    duplicate(insert(&store, table, &[(1, "a"), (1, "b")]).await, "1");
    insert(&store, table, &[(1, "a")]).await.unwrap();
    duplicate(insert(&store, table, &[(1, "b")]).await, "1");
    store.flush().await.unwrap();
    duplicate(insert(&store, table, &[(5, "x"), (1, "b")]).await, "1");
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(7, "x")])).await.unwrap();
    duplicate(transaction.insert(table, &rows(&[(7, "y")])).await, "7");
    duplicate(load(&mut transaction, table, &[(6, "x"), (7, "y")]).await, "7");
    duplicate(load(&mut transaction, table, &[(1, "x")]).await, "1");
    duplicate(load(&mut transaction, table, &[(9, "x"), (8, "y"), (9, "z")]).await, "9");
    load(&mut transaction, table, &[(12, "x"), (10, "y")]).await.unwrap();
    duplicate(transaction.insert(table, &rows(&[(12, "y")])).await, "12");
    duplicate(load(&mut transaction, table, &[(10, "y")]).await, "10");
    duplicate(transaction.update(table, &keys(&[7]), &rows(&[(10, "y")])).await, "10");
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await.keys().copied().collect::<Vec<_>>(), [1, 7, 10, 12]);
}

#[tokio::test]
async fn an_update_may_permute_keys() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    store.flush().await.unwrap();
    insert(&store, table, &[(3, "c")]).await.unwrap();
    update(&store, table, &[1, 2, 3], &[(2, "a"), (3, "b"), (1, "c")]).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "c"), (2, "a"), (3, "b")]));
}

#[tokio::test]
async fn of_two_transactions_that_change_one_row_the_first_to_commit_wins() {
    for flushed in [false, true] {
        let (_, store, table) = store_with(keyed("t")).await;
        insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
        if flushed {
            store.flush().await.unwrap();
        }
        let (mut first, mut second, mut third) = (store.begin(), store.begin(), store.begin());
        first.update(table, &keys(&[1]), &rows(&[(1, "first")])).await.unwrap();
        second.delete(table, &keys(&[1])).await.unwrap();
        third.update(table, &keys(&[2]), &rows(&[(2, "third")])).await.unwrap();
        first.commit(Durability::Sync).await.unwrap();
        if flushed {
            store.flush().await.unwrap();
        }
        assert!(matches!(second.commit(Durability::Sync).await, Err(Error::Conflict { .. })));
        third.commit(Durability::Sync).await.unwrap();
        assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "first"), (2, "third")]));
    }
}

#[tokio::test]
async fn concurrent_inserts_of_one_key_leave_one_row() {
    let (_, store, table) = store_with(keyed("t")).await;
    let (mut by_row, mut by_load, mut late_load) = (store.begin(), store.begin(), store.begin());
    by_row.insert(table, &rows(&[(1, "row")])).await.unwrap();
    load(&mut by_load, table, &[(0, "load"), (1, "load")]).await.unwrap();
    load(&mut late_load, table, &[(0, "late")]).await.unwrap();
    by_load.commit(Durability::Sync).await.unwrap();
    assert!(matches!(by_row.commit(Durability::Sync).await, Err(Error::DuplicateKey { .. })));
    assert!(matches!(late_load.commit(Durability::Sync).await, Err(Error::DuplicateKey { .. })));
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(0, "load"), (1, "load")]));
}

#[tokio::test]
async fn a_guarded_table_must_stay_as_the_snapshot_saw_it() {
    let (_, store, parent) = store_with(keyed("parent")).await;
    let mut setup = store.begin();
    let child = setup.create_table(keyed("child")).unwrap().id;
    setup.commit(Durability::Sync).await.unwrap();
    let mut transaction = store.begin();
    transaction.insert(child, &rows(&[(1, "a")])).await.unwrap();
    transaction.require_unchanged(parent);
    insert(&store, parent, &[(1, "p")]).await.unwrap();
    assert!(matches!(transaction.commit(Durability::Sync).await, Err(Error::Conflict { .. })));
}

#[tokio::test]
async fn a_large_load_is_sorted_split_and_pruned() {
    let (_, store, table) = store_with(keyed("t")).await;
    let data: Vec<(i64, &str)> = (0..20_000).map(|id| ((id * 7919) % 20_000, "x")).collect();
    let mut transaction = store.begin();
    assert_eq!(load(&mut transaction, table, &data).await.unwrap(), 20_000);
    transaction.commit(Durability::Sync).await.unwrap();
    let view = store.snapshot();
    assert_eq!(contents(&view, table).await.len(), 20_000);
    let statistics = view.statistics(table).unwrap();
    assert!(statistics.exact);
    assert_eq!(statistics.rows, 20_000);
    assert_eq!(statistics.columns[0].max.as_ref().unwrap().as_primitive::<Int64Type>().value(0), 19_999);
    let outside = Filter::Compare { column: 0, op: CompareOp::Gt, value: Arc::new(Int64Array::from(vec![19_999])) };
    let request = ScanRequest::new(table, vec![0]).with_filters(vec![outside]);
    assert!(view.scan(request).unwrap().is_empty());
}

#[tokio::test]
async fn rows_are_found_by_key_wherever_they_are() {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a"), (2, "b"), (3, "c")]).await.unwrap();
    store.flush().await.unwrap();
    insert(&store, table, &[(4, "d")]).await.unwrap();
    delete(&store, table, &[2]).await.unwrap();
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(5, "e")])).await.unwrap();
    load(&mut transaction, table, &[(6, "f")]).await.unwrap();
    let view = transaction.view();
    let found = view.lookup(table, &keys(&[1, 2, 3, 4, 5, 6, 7])).await.unwrap();
    assert_eq!(found, [true, false, true, true, true, true, false]);
    let batch = view.get(table, &keys(&[6, 1, 5, 4, 2]), &[1, 0]).await.unwrap();
    let mut names: Vec<&str> = batch.column(0).as_string_view().iter().flatten().collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "d", "e", "f"]);
}

#[tokio::test]
async fn a_table_without_a_primary_key_holds_equal_rows() {
    let (files, store, table) = store_with(keyless("t")).await;
    for _ in 0..2 {
        let mut transaction = store.begin();
        transaction.insert(table, &rows(&[(1, "a"), (1, "a")])).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        store.flush().await.unwrap();
    }
    let mut transaction = store.begin();
    load(&mut transaction, table, &[(1, "a")]).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(&files).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    let request = || ScanRequest::new(table, vec![2]);
    let mut ids = Vec::new();
    for unit in store.snapshot().scan(request()).unwrap() {
        let mut reader = unit.open();
        while let Some(batch) = reader.next_batch().await.unwrap() {
            ids.extend(batch.column(0).as_primitive::<arrow::datatypes::UInt64Type>().values().iter().copied());
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((count, ids.len()), (6, 6), "each row has an id of its own, also after a restart");
}

#[tokio::test]
async fn tables_are_created_and_dropped_atomically() {
    let (files, store, parent) = store_with(keyed("parent")).await;
    let foreign_key = ForeignKey {
        name: "fk".into(),
        columns: vec![0],
        parent,
        parent_columns: vec![0],
        match_full: false,
        on_delete: ReferenceAction::NoAction,
        on_update: ReferenceAction::NoAction,
        deferrable: false,
        initially_deferred: false,
        not_validated: false,
    };
    let child = NewTable { foreign_keys: vec![foreign_key], ..keyed("child") };
    let mut transaction = store.begin();
    let child = transaction.create_table(child).unwrap().id;
    transaction.insert(child, &rows(&[(1, "a")])).await.unwrap();
    assert!(transaction.view().catalog().find("public", "child").is_some());
    assert!(store.snapshot().catalog().find("public", "child").is_none());
    assert!(matches!(transaction.create_table(keyed("parent")), Err(Error::TableExists { .. })));
    transaction.commit(Durability::Sync).await.unwrap();
    assert!(matches!(store.begin().drop_table(parent), Err(Error::DependentObjects { .. })));

    let reader = store.snapshot();
    let mut writer = store.begin();
    writer.insert(child, &rows(&[(2, "b")])).await.unwrap();
    let mut transaction = store.begin();
    transaction.drop_table(child).unwrap();
    transaction.drop_table(parent).unwrap();
    let again = transaction.create_table(keyed("child")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    assert!(matches!(writer.commit(Durability::Sync).await, Err(Error::Conflict { .. })));
    assert_eq!(contents(&reader, child).await, map(&[(1, "a")]), "an older snapshot still reads it");
    drop(reader);
    store.close().await.unwrap();
    drop(store);
    let store = open(&files).await;
    let view = store.snapshot();
    let names: Vec<_> = view.catalog().tables().map(|table| (table.id, table.name.clone())).collect();
    assert_eq!(names, [(again, "child".to_string())]);
    assert!(contents(&view, again).await.is_empty());
}

#[tokio::test]
async fn a_row_changed_while_it_is_flushed_has_one_version_afterwards() {
    let (files, store, table) = store_with(keyed("t")).await;
    let names: Vec<String> = (0..400).map(|round| format!("v{round}")).collect();
    insert(&store, table, &[(1, "first"), (2, "x"), (3, "y")]).await.unwrap();
    let flusher = store.clone();
    let flushes = tokio::spawn(async move {
        for _ in 0..40 {
            flusher.flush().await.unwrap();
        }
    });
    for name in &names {
        update(&store, table, &[1], &[(1, name)]).await.unwrap();
        assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, name), (2, "x"), (3, "y")]));
    }
    flushes.await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(&files).await;
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "v399"), (2, "x"), (3, "y")]));
}

#[tokio::test]
async fn a_dropped_table_gives_its_files_back_when_the_last_reader_is_done() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "a")]).await.unwrap();
    store.flush().await.unwrap();
    let segments = |files: &rustydb_storage::MemoryFiles| {
        files.paths().iter().filter(|(path, _)| path.starts_with("segments/")).count()
    };
    let reader = store.snapshot();
    let mut transaction = store.begin();
    transaction.drop_table(table).unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(contents(&reader, table).await, map(&[(1, "a")]));
    assert_eq!(segments(&files), 1);
    drop(reader);
    // The background thread removes the file before it takes a job sent later.
    for _ in 0..100 {
        store.flush().await.unwrap();
        if segments(&files) == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the file is still there: {:?}", files.paths());
}

#[tokio::test]
async fn a_dropped_table_whose_rows_the_log_still_changes_is_not_missed_when_the_store_opens() {
    let (mut files, mut store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    load(&mut transaction, table, &[(1, "a"), (2, "b")]).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    update(&store, table, &[1], &[(1, "c")]).await.unwrap();
    for round in 0..4 {
        // Nothing is flushed: every opening reads the whole log, in which the table has a segment, an update, and its end.
        match round % 2 {
            0 => store.close().await.unwrap(),
            _ => files = files.after_power_cut(),
        }
        store = open(&files).await;
        if round == 0 {
            assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "c"), (2, "b")]));
            let mut transaction = store.begin();
            transaction.drop_table(table).unwrap();
            transaction.commit(Durability::Sync).await.unwrap();
        }
        assert_eq!(store.catalog().tables().count(), 0);
    }
}

#[tokio::test]
async fn a_store_is_opened_once_at_a_time_and_only_where_it_belongs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let options = || rustydb_storage::StoreOptions::directory(&path);
    let store = Store::open(options()).await.unwrap();
    assert!(matches!(Store::open(options()).await, Err(Error::Locked { .. })));
    store.close().await.unwrap();
    let store = Store::open(options()).await.unwrap();
    store.close().await.unwrap();
    std::fs::write(path.join("FORMAT"), "rustydb 999\n").unwrap();
    assert!(matches!(Store::open(options()).await, Err(Error::FutureFormat { found: 999, .. })));
    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("letter.txt"), "dear").unwrap();
    let opened = Store::open(rustydb_storage::StoreOptions::directory(&other)).await;
    assert!(matches!(opened, Err(Error::NotADatabase { .. })));
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1, "nothing was left in a foreign directory");
}

#[tokio::test]
async fn a_store_that_is_dropped_at_work_can_be_opened_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = || rustydb_storage::StoreOptions {
        // Every commit asks for a flush, and every few flushes for a compaction.
        memtable_bytes: 1,
        ..rustydb_storage::StoreOptions::directory(directory.path())
    };
    let mut store = Store::open(options()).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..30 {
        for id in round * 3..round * 3 + 1 + round % 3 {
            insert(&store, table, &[(id, "x")]).await.unwrap();
            expected.insert(id, "x".to_string());
        }
        drop(store);
        store = Store::open(options()).await.unwrap();
        assert_eq!(contents(&store.snapshot(), table).await, expected, "round {round}");
    }
    // Whoever still works with it keeps it, and is not waited for.
    let mut transaction = store.begin();
    drop(store);
    transaction.insert(table, &rows(&[(-1, "late")])).await.unwrap();
    expected.insert(-1, "late".to_string());
    assert_eq!(contents(&transaction.view(), table).await, expected);
    transaction.commit(Durability::Sync).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_grows_too_large_is_told_so_and_keeps_what_it_had() {
    let files = rustydb_storage::MemoryFiles::new();
    let options = rustydb_storage::StoreOptions { transaction_bytes: 10_000, ..options(&files) };
    let store = Store::open(options).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    transaction.insert(table, &rows(&[(1, "a")])).await.unwrap();
    let big: Vec<(i64, &str)> = (10..1000).map(|id| (id, "a long enough name to count")).collect();
    let refused = transaction.insert(table, &rows(&big)).await;
    assert!(matches!(refused, Err(Error::TransactionTooLarge { .. })));
    load(&mut transaction, table, &big).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await.len(), 991);
}

#[tokio::test]
async fn writers_wait_for_the_flush_instead_of_filling_the_memory() {
    let files = rustydb_storage::MemoryFiles::new();
    let options = rustydb_storage::StoreOptions { memtable_bytes: 20_000, ..options(&files) };
    let store = Store::open(options).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    for id in 0..2000 {
        insert(&store, table, &[(id, "some text of a usual length")]).await.unwrap();
        assert!(store.memory().memtable_bytes < 80_000, "{:?}", store.memory());
    }
    assert_eq!(contents(&store.snapshot(), table).await.len(), 2000);
}

#[tokio::test]
async fn null_is_refused_where_it_is_forbidden_and_kept_where_it_is_not() {
    let (_, store, table) = store_with(keyed("t")).await;
    let nulls = arrow::array::StringViewArray::from(vec![None::<&str>]);
    let ids = Arc::new(Int64Array::from(vec![Some(1)]));
    let batch = arrow::array::RecordBatch::try_new(schema(), vec![ids, Arc::new(nulls)]).unwrap();
    let mut transaction = store.begin();
    transaction.insert(table, &batch).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    for _ in 0..2 {
        assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "NULL")]));
        store.flush().await.unwrap();
    }
    let lax = Arc::new(arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int64, true),
        arrow::datatypes::Field::new("name", arrow::datatypes::DataType::Utf8View, true),
    ]));
    let ids = Arc::new(Int64Array::from(vec![None::<i64>]));
    assert_eq!(ids.null_count(), 1);
    let names = Arc::new(arrow::array::StringViewArray::from(vec!["x"]));
    let batch = arrow::array::RecordBatch::try_new(lax, vec![ids, names]).unwrap();
    let refused = store.begin().insert(table, &batch).await;
    assert!(matches!(refused, Err(Error::NotNull { column, .. }) if column == "id"));
}

#[tokio::test]
async fn a_row_inserted_and_deleted_again_does_not_excuse_a_loaded_one_with_its_key() {
    let (_, store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(1, "mine")])).await.unwrap();
    transaction.delete(table, &keys(&[1])).await.unwrap();
    load(&mut transaction, table, &[(1, "loaded")]).await.unwrap();
    insert(&store, table, &[(1, "theirs")]).await.unwrap();
    assert!(matches!(transaction.commit(Durability::Sync).await, Err(Error::DuplicateKey { .. })));
    assert_eq!(contents(&store.snapshot(), table).await, map(&[(1, "theirs")]));
}

/// Columns that no table is given any more: earlier releases have made such of what clients sent.
fn strange_columns() -> Vec<ArrayRef> {
    let decimals = |precision, scale| -> ArrayRef {
        let values = Decimal128Array::from(vec![Some(12), None, Some(-7)]);
        Arc::new(values.with_data_type(DataType::Decimal128(precision, scale)))
    };
    let mut nothing = FixedSizeBinaryBuilder::with_capacity(3, 0);
    nothing.append_value(b"").unwrap();
    nothing.append_null();
    nothing.append_value(b"").unwrap();
    vec![decimals(5, -2), decimals(38, -3), decimals(2, 5), Arc::new(nothing.finish())]
}

/// The printed values of all columns, in the order of the first one.
async fn printed(view: &ReadView, table: TableId, columns: usize) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for unit in view.scan(ScanRequest::new(table, (0..columns).collect())).unwrap() {
        let mut reader = unit.open();
        while let Some(batch) = reader.next_batch().await.unwrap() {
            for row in 0..batch.num_rows() {
                let value = |column: &ArrayRef| match column.data_type() {
                    _ if column.is_null(row) => "NULL".to_owned(),
                    DataType::FixedSizeBinary(_) => format!("{:?}", column.as_fixed_size_binary().value(row)),
                    DataType::Decimal128(..) => {
                        column.as_primitive::<arrow::datatypes::Decimal128Type>().value(row).to_string()
                    }
                    _ => column.as_primitive::<Int64Type>().value(row).to_string(),
                };
                found.push(batch.columns().iter().map(value).collect());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_table_with_columns_that_no_file_can_have_is_written_out_and_read_again() {
    let mut columns = strange_columns();
    assert!(columns.iter().all(|column| canonical_type(column.data_type()).as_ref() != Some(column.data_type())));
    columns.insert(0, Arc::new(Int64Array::from(vec![1, 2, 3])));
    let field =
        |(place, column): (usize, &ArrayRef)| Field::new(format!("c{place}"), column.data_type().clone(), place > 0);
    let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
    let (files, store, table) = store_with(NewTable { schema: Arc::clone(&schema), ..keyed("strange") }).await;
    let expected: Vec<Vec<String>> =
        [["1", "12", "12", "12", "[]"], ["2", "NULL", "NULL", "NULL", "NULL"], ["3", "-7", "-7", "-7", "[]"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec();
    let mut transaction = store.begin();
    transaction.insert(table, &RecordBatch::try_new(schema, columns).unwrap()).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(printed(&store.snapshot(), table, 5).await, expected);
    store.flush().await.unwrap();
    assert_eq!(printed(&store.snapshot(), table, 5).await, expected);
    store.close().await.unwrap();
    drop(store);
    assert_eq!(check(options(&files)).await.unwrap().findings, vec![]);
    let store = open(&files).await;
    assert_eq!(printed(&store.snapshot(), table, 5).await, expected);
}
