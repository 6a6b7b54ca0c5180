//! The log's file format.
//!
//! ```text
//!  file   = header frame*
//!  header = "RDBLOG" version:u16 number:u64 crc32c:u32          (of the bytes before it)
//!  frame  = magic:u32 length:u32 crc32c:u32 payload             (checksum of length and payload)
//!  mark   = a frame with its own magic; payload = synced:u64    (bytes of this file that are durable already)
//!  rest   = zeros                                               (reserved for frames to come; none in a finished file)
//! ```
//! Little-endian. Each batch begins with a mark. Reading stops at the first frame that is not whole ([`read`](super::read)).

use rustydb_txn::Timestamp;

use crate::error::{Error, Result};

/// Folder of the log files.
pub(crate) const LOG_DIRECTORY: &str = "log";

pub(super) const FILE_MAGIC: &[u8; 6] = b"RDBLOG";
pub(super) const FILE_VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 20;
const FRAME_MAGIC: u32 = 0x5244_4246;
const MARK_MAGIC: u32 = 0x5244_424D;
pub(super) const FRAME_HEAD_BYTES: usize = 12;

/// What the mark takes that begins a batch.
pub(super) const MARK_BYTES: u64 = (FRAME_HEAD_BYTES + size_of::<u64>()) as u64;

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
        write_record(buffer, &self.bytes[FRAME_HEAD_BYTES..]);
    }
}

/// Appends a record's frame.
pub(super) fn write_record(buffer: &mut Vec<u8>, payload: &[u8]) {
    write_frame(buffer, FRAME_MAGIC, payload);
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

pub(super) fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// What begins at some place of a log file.
pub(super) enum Next<'a> {
    /// A whole frame with this payload, perhaps a mark.
    Frame { payload: &'a [u8], is_mark: bool },
    /// Perhaps a frame that goes on behind the data, which would have to be so long.
    Beyond(usize),
    /// No frame.
    Nothing,
}

/// What begins at `at`.
pub(super) fn next_frame(data: &[u8], at: usize) -> Next<'_> {
    let Some((head, rest)) = data.get(at..).and_then(|data| data.split_first_chunk::<FRAME_HEAD_BYTES>()) else {
        return Next::Beyond(at + FRAME_HEAD_BYTES);
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (magic, length) = (word(0), word(4) as usize);
    if magic != FRAME_MAGIC && magic != MARK_MAGIC {
        return Next::Nothing;
    }
    match rest.get(..length) {
        None => Next::Beyond(at + FRAME_HEAD_BYTES + length),
        Some(payload) if frame_checksum(&head[4..8], payload) == word(8) => {
            Next::Frame { payload, is_mark: magic == MARK_MAGIC }
        }
        Some(_) => Next::Nothing,
    }
}
