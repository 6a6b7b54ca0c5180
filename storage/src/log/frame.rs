//! The log's file format.
//!
//! ```text
//!  file   = header frame*
//!  header = "RDBLOG" version:u16 number:u64 crc32c:u32          (of the bytes before it)
//!  frame  = magic:u32 length:u32 crc32c:u32 payload             (checksum of length and payload)
//!  mark   = a frame with its own magic; payload = synced:u64    (bytes of this file that are durable already)
//! ```
//! Little-endian. Each batch begins with a mark. Reading stops at the first frame that is not whole. In the newest file
//! that is the *torn tail* a crash leaves: a batch that was being written, whose pages may have reached the disk in any
//! order. If a mark behind it says that the place had been synced, it is something else: bytes that were durable have
//! changed, acknowledged commits would be lost in silence, and the log is reported as damaged instead. Older files were
//! synced to their end before the next was begun, so there any bad frame is damage.

use rustydb_txn::Timestamp;

use crate::error::{Error, Result};
use crate::files::Files;

/// Folder of the log files.
pub(crate) const LOG_DIRECTORY: &str = "log";

const FILE_MAGIC: &[u8; 6] = b"RDBLOG";
const FILE_VERSION: u16 = 1;
const HEADER_BYTES: usize = 20;
const FRAME_MAGIC: u32 = 0x5244_4246;
const MARK_MAGIC: u32 = 0x5244_424D;
const FRAME_HEAD_BYTES: usize = 12;

/// Longest payload: a transaction's changes are bounded well below this.
const PAYLOAD_BYTES_MAX: usize = u32::MAX as usize;

/// Path of a log file.
pub(crate) fn log_path(number: u64) -> String {
    format!("{LOG_DIRECTORY}/{number:012}.log")
}

/// The number of the log file at a path.
pub(crate) fn log_number(path: &str) -> Option<u64> {
    path.strip_prefix(LOG_DIRECTORY)?.strip_prefix('/')?.strip_suffix(".log")?.parse().ok()
}

pub(super) fn header(number: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(FILE_MAGIC);
    header.extend_from_slice(&FILE_VERSION.to_le_bytes());
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// A record's frame in the making: its payload, behind room for the head.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame whose payload `encode` produces.
    pub(crate) fn new(encode: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Frame> {
        let mut bytes = vec![0; FRAME_HEAD_BYTES];
        encode(&mut bytes)?;
        if bytes.len() - FRAME_HEAD_BYTES > PAYLOAD_BYTES_MAX {
            return Err(Error::TransactionTooLarge { limit_bytes: PAYLOAD_BYTES_MAX });
        }
        Ok(Frame { bytes })
    }

    /// Puts the timestamp in its place, at the beginning of the payload.
    pub(super) fn set_timestamp(&mut self, timestamp: Timestamp) {
        if let Some(place) = self.bytes.get_mut(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + size_of::<Timestamp>()) {
            place.copy_from_slice(&timestamp.to_le_bytes());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the finished frame to a buffer.
    pub(super) fn write(&self, buffer: &mut Vec<u8>) {
        write_frame(buffer, FRAME_MAGIC, &self.bytes[FRAME_HEAD_BYTES..]);
    }
}

/// Appends the mark that begins a batch.
pub(super) fn write_mark(buffer: &mut Vec<u8>, synced_bytes: u64) {
    write_frame(buffer, MARK_MAGIC, &synced_bytes.to_le_bytes());
}

fn write_frame(buffer: &mut Vec<u8>, magic: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    buffer.extend_from_slice(&magic.to_le_bytes());
    buffer.extend_from_slice(&length);
    buffer.extend_from_slice(&frame_checksum(&length, payload).to_le_bytes());
    buffer.extend_from_slice(payload);
}

fn frame_checksum(length: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), payload)
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The payload of the whole frame at `at`, if there is one, and whether it is a mark.
fn frame_at(data: &[u8], at: usize) -> Option<(&[u8], bool)> {
    let magic = read_u32(data, at)?;
    if magic != FRAME_MAGIC && magic != MARK_MAGIC {
        return None;
    }
    let length = read_u32(data, at + 4)? as usize;
    let payload = data.get(at + FRAME_HEAD_BYTES..)?.get(..length)?;
    (frame_checksum(&data[at + 4..at + 8], payload) == read_u32(data, at + 8)?)
        .then_some((payload, magic == MARK_MAGIC))
}

/// Whether a mark behind `at` says that the bytes at `at` were durable.
fn was_synced(data: &[u8], at: usize) -> bool {
    (at + 1..data.len()).any(|later| match frame_at(data, later) {
        Some((payload, true)) => payload.try_into().is_ok_and(|synced| u64::from_le_bytes(synced) > at as u64),
        _ => false,
    })
}

/// What a log file holds.
pub(crate) struct ReadLog {
    data: Vec<u8>,
    /// Start and length of each payload.
    payloads: Vec<(usize, usize)>,
    /// Where the last whole frame ends.
    pub(crate) valid_bytes: u64,
    /// Whether bytes of an unfinished frame follow it.
    pub(crate) torn: bool,
}

impl ReadLog {
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().map(|(start, length)| &self.data[*start..start + length])
    }
}

/// Reads a log file; `newest` allows a torn tail.
pub(crate) fn read_log(files: &dyn Files, number: u64, newest: bool) -> Result<ReadLog> {
    let path = log_path(number);
    let data = files.read(&path).map_err(|error| Error::io(format!("reading {path}"), error))?;
    if data.len() < HEADER_BYTES && newest {
        // A crash between creating the file and syncing its header; nothing was logged to it.
        return Ok(ReadLog { torn: !data.is_empty(), data, payloads: Vec::new(), valid_bytes: 0 });
    }
    check_header(&path, number, &data)?;
    let (mut payloads, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some((payload, is_mark)) = frame_at(&data, at) {
        if !is_mark {
            payloads.push((at + FRAME_HEAD_BYTES, payload.len()));
        }
        at += FRAME_HEAD_BYTES + payload.len();
    }
    let torn = at < data.len();
    if torn && (!newest || was_synced(&data, at)) {
        return Err(Error::corruption(path, format!("the record at byte {at} is damaged")));
    }
    Ok(ReadLog { payloads, valid_bytes: at as u64, torn, data })
}

fn check_header(path: &str, number: u64, data: &[u8]) -> Result<()> {
    let damaged = |detail: String| Err(Error::corruption(path, detail));
    let Some(found) = data.get(..HEADER_BYTES) else {
        return damaged("the file is shorter than its header".into());
    };
    if found == header(number) {
        return Ok(());
    }
    let version = u16::from_le_bytes([found[6], found[7]]);
    if &found[..6] != FILE_MAGIC {
        return damaged("this is no RustyDB log file".into());
    }
    if read_u32(found, 16) == Some(crc32c::crc32c(&found[..16])) && version > FILE_VERSION {
        return Err(Error::FutureFormat { path: path.into(), found: version.into(), supported: FILE_VERSION.into() });
    }
    damaged("the header is damaged".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{MemoryFiles, publish_file};

    fn log_with(records: &[&[u8]]) -> (MemoryFiles, Vec<u8>) {
        let mut data = header(1);
        for record in records {
            let synced = data.len() as u64;
            write_mark(&mut data, synced);
            write_frame(&mut data, FRAME_MAGIC, record);
        }
        let files = MemoryFiles::new();
        publish_file(&files, &log_path(1), &[&data]).unwrap();
        (files, data)
    }

    #[test]
    fn whole_records_are_read_back() {
        let (files, data) = log_with(&[b"one", b"", b"three"]);
        let log = read_log(&files, 1, true).unwrap();
        assert_eq!(log.payloads().collect::<Vec<_>>(), [b"one".as_slice(), b"", b"three"]);
        assert_eq!((log.valid_bytes, log.torn), (data.len() as u64, false));
    }

    #[test]
    fn a_torn_tail_is_cut_in_the_newest_file_and_damage_in_an_older_one() {
        let last_frame = FRAME_HEAD_BYTES + 4;
        for cut in 1..=last_frame {
            let (files, data) = log_with(&[b"first", b"last"]);
            files.damage(&log_path(1), |data| data.truncate(data.len() - cut));
            let torn = cut < last_frame;
            let log = read_log(&files, 1, true).unwrap();
            assert_eq!(log.payloads().count(), 1, "cut {cut}");
            assert_eq!(log.torn, torn);
            assert!(log.valid_bytes < data.len() as u64);
            assert_eq!(read_log(&files, 1, false).is_err(), torn);
        }
    }

    #[test]
    fn pages_of_an_unsynced_batch_may_be_missing_in_the_middle() {
        let mut data = header(1);
        let synced = data.len() as u64;
        write_mark(&mut data, synced);
        let start = data.len();
        for record in [b"one", b"two"] {
            write_frame(&mut data, FRAME_MAGIC, record);
        }
        data[start] = 0;
        let files = MemoryFiles::new();
        publish_file(&files, &log_path(1), &[&data]).unwrap();
        let log = read_log(&files, 1, true).unwrap();
        assert_eq!((log.payloads().count(), log.valid_bytes, log.torn), (0, start as u64, true));
    }

    #[test]
    fn every_flipped_byte_that_was_synced_is_reported() {
        let (_, pristine) = log_with(&[b"first", b"second", b"last"]);
        let last_batch = 2 * FRAME_HEAD_BYTES + size_of::<u64>() + 4;
        let last = pristine.len() - last_batch;
        for at in 0..last {
            let (files, _) = log_with(&[b"first", b"second", b"last"]);
            files.damage(&log_path(1), |data| data[at] ^= 0x10);
            let read = read_log(&files, 1, true);
            let named = matches!(read, Err(Error::Corruption { .. } | Error::FutureFormat { .. }));
            assert!(named, "byte {at} changed unnoticed");
        }
    }

    #[test]
    fn a_future_version_is_named() {
        let (files, _) = log_with(&[]);
        files.damage(&log_path(1), |data| {
            data[6] = 9;
            let checksum = crc32c::crc32c(&data[..16]).to_le_bytes();
            data[16..20].copy_from_slice(&checksum);
        });
        assert!(matches!(read_log(&files, 1, true), Err(Error::FutureFormat { found: 9, .. })));
    }
}
