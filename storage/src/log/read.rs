//! Reading a log file back.
//!
//! ```text
//!   file   header │ frames …………… │ frames …………… │ frames ……… │ rest
//!                 └── window ─────┴── window ─────┴── window ──┘
//! ```
//! A window is about a megabyte, so that its records are decoded while they are still in the core's cache; whoever wants to
//! keep rows without copying them keeps their window. Reading stops at the first frame that is not whole. What is behind it
//! in the newest file is one of these:
//!
//! * *zeros*: reserved and not written to. The file ends there.
//! * *a torn batch*: it was being written when the power went, and its pages may have reached the disk in any order. Nobody
//!   was told that it is durable, and it is cut off.
//! * *damage*: a mark further on says that this place had been synced. Bytes that were durable have changed, and cutting
//!   them off would lose acknowledged commits in silence. It is reported instead.
//!
//! A crash while the newest file is being created leaves one without a header or with a part of it; there is nothing in it,
//! and it is *unused*. Older files were finished and synced to their end before the next one was begun, so there anything
//! that is not a frame is damage.

use std::ops::Range;

use bytes::Bytes;

use super::frame::{
    FILE_MAGIC, FILE_VERSION, FRAME_HEAD_BYTES, HEADER_BYTES, Next, header, log_path, next_frame, read_u32,
};
use crate::error::{Error, Result};
use crate::files::Files;

/// Bytes that are read and handed on together, if no record is longer.
const WINDOW_BYTES: usize = 1 << 20;

/// What was found in a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadLog {
    /// Where the last whole frame ends; 0 for an unused file.
    pub(crate) valid_bytes: u64,
    /// What was certainly durable before the last batch was written.
    pub(crate) synced_bytes: u64,
    /// Whether an unfinished batch follows.
    pub(crate) torn: bool,
}

impl ReadLog {
    const UNUSED: ReadLog = ReadLog { valid_bytes: 0, synced_bytes: 0, torn: false };

    /// Whether the file was never finished being created.
    pub(crate) fn is_unused(&self) -> bool {
        self.valid_bytes == 0
    }
}

/// Reads a log file and hands the payload of each record on: the window and its place there. `newest` allows for what a
/// crash leaves. A file of an earlier epoch ends at `end`, whatever is behind.
pub(crate) fn read_log(
    files: &dyn Files,
    number: u64,
    newest: bool,
    end: Option<u64>,
    mut take: impl FnMut(&Bytes, Range<usize>) -> Result<()>,
) -> Result<ReadLog> {
    let path = log_path(number);
    let failed = |error| Error::io(format!("reading {path}"), error);
    let size = match (files.size(&path).map_err(failed)?, end) {
        (found, Some(end)) if found < end => {
            return Err(Error::corruption(path, format!("it has {found} bytes, not {end}")));
        }
        (found, end) => end.unwrap_or(found),
    };
    let read = |from: u64, bytes: u64| files.read_range(&path, from..from + bytes).map_err(failed);
    if let Err(damage) = check_header(&path, number, &read(0, size.min(HEADER_BYTES as u64))?) {
        let is_unused = newest && matches!(damage, Error::Corruption { .. }) && !has_frames(&read(0, size)?);
        return if is_unused { Ok(ReadLog::UNUSED) } else { Err(damage) };
    }
    let (mut at, mut synced_bytes, mut wanted) = (HEADER_BYTES as u64, HEADER_BYTES as u64, WINDOW_BYTES);
    loop {
        let window = Bytes::from(read(at, (size - at).min(wanted as u64))?);
        let (mut end, mut needed) = (0, None);
        loop {
            match next_frame(&window, end) {
                Next::Frame { payload, is_mark } => {
                    let start = end + FRAME_HEAD_BYTES;
                    end = start + payload.len();
                    match is_mark {
                        true => synced_bytes = payload.try_into().map_or(synced_bytes, u64::from_le_bytes),
                        false => take(&window, start..end)?,
                    }
                }
                Next::Beyond(bytes) => {
                    needed = Some(bytes - end);
                    break;
                }
                Next::Nothing => break,
            }
        }
        at += end as u64;
        match needed.filter(|needed| *needed as u64 <= size - at) {
            Some(needed) => wanted = needed.max(WINDOW_BYTES),
            None => break,
        }
    }
    let rest = read(at, size - at)?;
    let torn = rest.iter().any(|byte| *byte != 0);
    if (!newest && !rest.is_empty()) || (torn && was_synced(&rest, at)) {
        return Err(Error::corruption(path, format!("the record at byte {at} is damaged")));
    }
    Ok(ReadLog { valid_bytes: at, synced_bytes, torn })
}

/// Whether a mark in the `rest` of a file, which begins at byte `at`, says that the bytes there were durable. What a mark says is
/// where it stands itself: bytes of a row that look like one say something else.
fn was_synced(rest: &[u8], at: u64) -> bool {
    (1..rest.len()).any(|later| match next_frame(rest, later) {
        Next::Frame { payload, is_mark: true } => {
            payload.try_into().is_ok_and(|synced| u64::from_le_bytes(synced) == at + later as u64)
        }
        _ => false,
    })
}

fn has_frames(data: &[u8]) -> bool {
    (0..data.len()).any(|at| matches!(next_frame(data, at), Next::Frame { .. }))
}

fn check_header(path: &str, number: u64, found: &[u8]) -> Result<()> {
    let damaged = |detail: &str| Err(Error::corruption(path, detail));
    if found == header(number) {
        return Ok(());
    }
    if found.len() < HEADER_BYTES {
        return damaged("the file is shorter than its header");
    }
    let version = u16::from_le_bytes([found[6], found[7]]);
    if &found[..6] != FILE_MAGIC {
        return damaged("this is no RustyDB log file");
    }
    if read_u32(found, 16) == Some(crc32c::crc32c(&found[..16])) && version > FILE_VERSION {
        return Err(Error::FutureFormat { path: path.into(), found: version.into(), supported: FILE_VERSION.into() });
    }
    damaged("the header is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{MemoryFiles, publish_file};
    use crate::log::frame::{write_mark, write_record};

    const FRAME_BYTES: usize = FRAME_HEAD_BYTES + 4;

    /// A file of batches with one record each.
    fn log_with(records: &[&[u8]]) -> (MemoryFiles, Vec<u8>) {
        let mut data = header(1);
        for record in records {
            let synced = data.len() as u64;
            write_mark(&mut data, synced);
            write_record(&mut data, record);
        }
        (file_of(&data), data)
    }

    fn file_of(data: &[u8]) -> MemoryFiles {
        let files = MemoryFiles::new();
        publish_file(&files, &log_path(1), &[data]).unwrap();
        files
    }

    fn read_back(files: &MemoryFiles, newest: bool) -> Result<(Vec<Vec<u8>>, ReadLog)> {
        let mut records = Vec::new();
        let log = read_log(files, 1, newest, None, |window, range| {
            records.push(window[range].to_vec());
            Ok(())
        })?;
        Ok((records, log))
    }

    #[test]
    fn whole_records_are_read_back_also_across_windows() {
        let long = vec![7; 3 * WINDOW_BYTES / 2];
        let many: Vec<Vec<u8>> = (0..5000_u32).map(|number| vec![number as u8; 700 + number as usize % 5]).collect();
        let all: Vec<&[u8]> = [b"one".as_slice(), b"", b"three", &long]
            .into_iter()
            .chain(many.iter().map(Vec::as_slice))
            .chain([long.as_slice(), b"last"])
            .collect();
        let (files, data) = log_with(&all);
        let (records, log) = read_back(&files, true).unwrap();
        assert!(records == all, "{} records, not {}", records.len(), all.len());
        let last_batch = (FRAME_HEAD_BYTES + size_of::<u64>() + FRAME_BYTES) as u64;
        let (valid_bytes, synced_bytes) = (data.len() as u64, data.len() as u64 - last_batch);
        assert_eq!(log, ReadLog { valid_bytes, synced_bytes, torn: false });
    }

    #[test]
    fn a_torn_tail_is_told_in_the_newest_file_and_damage_in_an_older_one() {
        for cut in 1..=FRAME_BYTES {
            let (files, data) = log_with(&[b"first", b"last"]);
            files.damage(&log_path(1), |data| data.truncate(data.len() - cut));
            let torn = cut < FRAME_BYTES;
            let (records, log) = read_back(&files, true).unwrap();
            assert_eq!(records.len(), 1, "cut {cut}");
            assert_eq!(log.torn, torn);
            assert!(log.valid_bytes < data.len() as u64);
            assert_eq!(read_back(&files, false).is_err(), torn);
        }
    }

    #[test]
    fn reserved_zeros_are_no_torn_tail_and_a_torn_one_may_have_zeros_behind_it_or_within() {
        for zeros in [1, 11, 12, 13, 5000] {
            let (files, data) = log_with(&[b"first", b"last"]);
            files.damage(&log_path(1), |data| data.resize(data.len() + zeros, 0));
            let (records, log) = read_back(&files, true).unwrap();
            assert_eq!((records.len(), log.valid_bytes, log.torn), (2, data.len() as u64, false));
            assert!(read_back(&files, false).is_err(), "an older file is finished");
            for lost in 1..FRAME_BYTES {
                let end = data.len() - lost;
                files.damage(&log_path(1), |data| data[end..].fill(0));
                let (records, log) = read_back(&files, true).unwrap();
                assert_eq!((records.len(), log.torn), (1, true), "{lost} bytes of {zeros} zeros");
            }
        }
    }

    #[test]
    fn pages_of_an_unsynced_batch_may_be_missing_in_the_middle() {
        let mut data = header(1);
        let synced = data.len() as u64;
        write_mark(&mut data, synced);
        let start = data.len();
        [b"one", b"two"].iter().for_each(|record| write_record(&mut data, *record));
        data[start] = 0;
        let (records, log) = read_back(&file_of(&data), true).unwrap();
        assert_eq!((records.len(), log.valid_bytes, log.torn), (0, start as u64, true));
    }

    #[test]
    fn a_row_that_looks_like_a_mark_is_none() {
        let mut data = header(1);
        let synced = data.len() as u64;
        write_mark(&mut data, synced);
        let start = data.len();
        let mut row = Vec::new();
        write_mark(&mut row, u64::MAX);
        write_record(&mut data, b"torn");
        write_record(&mut data, &row);
        data[start] = 0;
        let (records, log) = read_back(&file_of(&data), true).unwrap();
        assert_eq!((records.len(), log.valid_bytes, log.torn), (0, start as u64, true));
    }

    #[test]
    fn every_flipped_byte_that_was_synced_is_reported() {
        let (_, pristine) = log_with(&[b"first", b"second", b"last"]);
        let last_batch = 2 * FRAME_HEAD_BYTES + size_of::<u64>() + 4;
        for at in 0..pristine.len() - last_batch {
            let (files, _) = log_with(&[b"first", b"second", b"last"]);
            files.damage(&log_path(1), |data| {
                data[at] ^= 0x10;
                data.resize(data.len() + 100, 0);
            });
            let read = read_back(&files, true);
            let named = matches!(read, Err(Error::Corruption { .. } | Error::FutureFormat { .. }));
            assert!(named, "byte {at} changed unnoticed");
        }
    }

    #[test]
    fn a_file_whose_creation_a_crash_has_cut_short_is_unused() {
        for kept in 0..HEADER_BYTES {
            for zeros in [0, HEADER_BYTES - kept, 4096] {
                let mut data = header(1)[..kept].to_vec();
                data.resize(kept + zeros, 0);
                assert!(read_back(&file_of(&data), true).unwrap().1.is_unused(), "{kept} bytes, {zeros} zeros");
                assert!(read_back(&file_of(&data), false).is_err());
            }
        }
        let (records, log) = read_back(&file_of(&header(1)), true).unwrap();
        assert!(records.is_empty() && !log.is_unused());
    }

    #[test]
    fn what_is_behind_the_end_of_an_earlier_epoch_does_not_count() {
        let (files, data) = log_with(&[b"first", b"last"]);
        let take = |end| {
            let mut records = 0;
            let log = read_log(&files, 1, false, Some(end), |_, _| {
                records += 1;
                Ok(())
            });
            log.map(|log| (records, log.valid_bytes))
        };
        let length = data.len() as u64;
        let first = length - (2 * FRAME_HEAD_BYTES + size_of::<u64>() + 4) as u64;
        assert_eq!(take(first).unwrap(), (1, first));
        assert_eq!(take(length).unwrap(), (2, length));
        assert!(matches!(take(length + 1), Err(Error::Corruption { .. })), "a part is missing");
        assert!(matches!(take(length - 1), Err(Error::Corruption { .. })), "it ended with a record");
    }

    #[test]
    fn a_future_version_is_named() {
        let (files, _) = log_with(&[]);
        files.damage(&log_path(1), |data| {
            data[6] = 9;
            let checksum = crc32c::crc32c(&data[..16]).to_le_bytes();
            data[16..20].copy_from_slice(&checksum);
        });
        assert!(matches!(read_back(&files, true), Err(Error::FutureFormat { found: 9, .. })));
    }
}
