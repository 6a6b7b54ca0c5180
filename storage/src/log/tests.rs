//! Files of the log, and what a full disk does to them.

use super::file::{RESERVE_BYTES_MAX, RESERVE_BYTES_MIN};
use super::*;
use crate::TableId;
use crate::files::MemoryFiles;
use crate::store::Publication;

fn start(files: &MemoryFiles) -> Log {
    let lock = Arc::from(files.lock().unwrap());
    Log::start(Arc::new(files.clone()), 1, Arc::new(Publication::default()), lock).unwrap()
}

fn records(files: &MemoryFiles, number: u64, newest: bool) -> (Vec<Timestamp>, read::ReadLog) {
    let mut timestamps = Vec::new();
    let log = read_log(files, number, newest, None, |window, range| {
        timestamps.push(Operations::of(&window[range]).unwrap().0);
        Ok(())
    });
    (timestamps, log.unwrap())
}

/// Appends a record with a row of so many bytes and waits until it is durable.
async fn append_row(log: &Log, bytes: usize, claim: Claim) -> Result<()> {
    let row = vec![0; bytes];
    let operations = vec![Operation::Put { table: TableId(1), row: &row }];
    let lsn = log.append(&Record { timestamp: 0, operations }, claim).await?;
    log.wait_durable(lsn).await
}

async fn rotate(log: &Log) -> u64 {
    let (number, position) = log.rotate(log.prepare_file().unwrap()).unwrap().expect("no other file was begun");
    log.wait_durable(position).await.unwrap();
    number
}

#[tokio::test]
async fn a_new_file_exists_when_its_position_is_durable() {
    for _ in 0..50 {
        let files = MemoryFiles::new();
        let log = start(&files);
        assert_eq!(rotate(&log).await, 2);
        let left = files.after_power_cut();
        assert!(left.paths().iter().any(|(path, _)| *path == log_path(2)), "{:?}", left.paths());
    }
}

#[tokio::test]
async fn a_file_has_room_while_it_is_written_and_ends_with_its_last_record_when_it_is_done() {
    let files = MemoryFiles::new();
    let log = start(&files);
    append_row(&log, 1, Claim::Ordinary).await.unwrap();
    append_row(&log, 2, Claim::Ordinary).await.unwrap();
    let size = |number| files.size(&log_path(number)).unwrap();
    assert_eq!(size(1), RESERVE_BYTES_MIN);
    rotate(&log).await;
    let (found, read) = records(&files, 1, false);
    assert_eq!((found.len(), read.valid_bytes), (2, size(1)));
    append_row(&log, 3, Claim::Ordinary).await.unwrap();
    let (found, read) = records(&files.after_power_cut(), 2, true);
    assert_eq!((found.len(), read.torn), (1, false));
    assert!(read.valid_bytes < size(2));
    log.stop();
    assert_eq!(records(&files, 2, false), (found, read));
}

#[tokio::test]
async fn a_long_file_is_followed_by_another() {
    let files = MemoryFiles::new();
    let log = start(&files);
    for _ in 0..5 {
        append_row(&log, 40 << 20, Claim::Ordinary).await.unwrap();
    }
    log.stop();
    let counts: Vec<usize> = (1..=3).map(|number| records(&files, number, number == 3).0.len()).collect();
    assert_eq!(counts, [2, 2, 1]);
}

/// It goes on in the file that is long enough, and in another when there can be one.
#[tokio::test]
async fn a_disk_without_room_for_another_file_stops_nothing() {
    let files = MemoryFiles::new();
    let log = start(&files);
    files.fill(Some(LOG_DIRECTORY));
    for _ in 0..4 {
        append_row(&log, 23 << 20, Claim::Ordinary).await.unwrap();
    }
    assert!(log.prepare_file().is_err());
    // Until it is durable the thread may not yet have tried, after the fourth, to make another file.
    append_row(&log, 1, Claim::Ordinary).await.unwrap();
    files.fill(None);
    append_row(&log, 23 << 20, Claim::Ordinary).await.unwrap();
    // The first of them may be there before the other file is.
    for _ in 0..2 {
        append_row(&log, 1, Claim::Ordinary).await.unwrap();
    }
    log.stop();
    let counts = [records(&files, 1, false).0.len(), records(&files, 2, true).0.len()];
    assert_eq!(counts.iter().sum::<usize>(), 8);
    assert!(counts[0] >= 6 && counts[1] >= 1, "{counts:?}");
}

/// The file's end is written over, byte by byte, and nothing is written behind it.
#[tokio::test]
async fn a_full_disk_refuses_what_there_is_no_room_for_and_nothing_else() {
    let files = MemoryFiles::new();
    let log = start(&files);
    files.leave_room(Some(0));
    let mut taken = Vec::new();
    for claim in [Claim::Ordinary, Claim::Last] {
        for bytes in [20_000, 1_000, 100, 0] {
            let refused = loop {
                match append_row(&log, bytes, claim).await {
                    Ok(()) => taken.push(bytes),
                    Err(error) => break error,
                }
                assert!(taken.len() < 10_000, "more than there is room for");
            };
            assert!(matches!(&refused, Error::NoRoom { reason } if reason.contains("the log")), "{refused}");
        }
    }
    assert!(taken.len() > 10, "{taken:?}");
    log.check().unwrap();
    assert_eq!(files.size(&log_path(1)).unwrap(), RESERVE_BYTES_MIN);
    let (found, read) = records(&files.after_power_cut(), 1, true);
    assert_eq!((found.len(), read.torn), (taken.len(), false));
    assert!(RESERVE_BYTES_MIN - read.valid_bytes < 100, "{read:?}");

    // A little room, which is not enough for what is usual.
    files.leave_room(Some(30_000));
    assert!(matches!(append_row(&log, 40_000, Claim::Ordinary).await, Err(Error::NoRoom { .. })));
    append_row(&log, 10_000, Claim::Ordinary).await.unwrap();
    assert!(matches!(append_row(&log, 10_000, Claim::Ordinary).await, Err(Error::NoRoom { .. })));
    files.leave_room(None);
    append_row(&log, 40_000, Claim::Ordinary).await.unwrap();
    log.stop();
    assert_eq!(records(&files, 1, false).0.len(), taken.len() + 2);
}

/// One who wants too much takes nothing from those who wait beside it.
#[tokio::test]
async fn small_records_get_the_room_that_is_too_little_for_a_large_one() {
    for _ in 0..10 {
        let files = MemoryFiles::new();
        let log = start(&files);
        files.leave_room(Some(2 * RESERVE_BYTES_MAX));
        let held = files.hold_syncs();
        let before = append_row(&log, 1, Claim::Ordinary);
        let large = append_row(&log, 4 * RESERVE_BYTES_MAX as usize, Claim::Ordinary);
        let small = append_row(&log, 1_000_000, Claim::Ordinary);
        // All of them wait for the same round of the log's thread.
        let go_on = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let (before, large, small, ()) = futures::join!(before, large, small, go_on);
        before.unwrap();
        assert!(matches!(large, Err(Error::NoRoom { .. })), "{large:?}");
        small.unwrap();
    }
}

#[tokio::test]
async fn what_is_taken_at_once_by_many_is_never_more_than_there_is_room_for() {
    let files = MemoryFiles::new();
    let log = start(&files);
    for round in 0..100 {
        let sizes = (0..8).map(|number| (round * 7919 + number * 104_729) % 30_000);
        let appended = sizes.map(|bytes| append_row(&log, bytes, Claim::Ordinary));
        futures::future::try_join_all(appended).await.unwrap();
        // What is written behind the zeros would be what a full disk may fail.
        assert!(log.shared.pending.lock().room >= ROOM_KEPT_BYTES, "round {round}");
    }
    let room = log.shared.pending.lock().room;
    let (found, read) = records(&files, 1, true);
    assert_eq!((found.len(), files.size(&log_path(1)).unwrap() - read.valid_bytes), (800, room));
}
