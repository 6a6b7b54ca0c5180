//! What a commit says in the log.
//!
//! ```text
//!  record    = timestamp:u64 count:u32 operation*
//!  operation = tag:u8 …
//!    1 put          table:u64 length:u32 row          (row encoding of the table; the key is in the row)
//!    2 delete       table:u64 length:u32 key          (memcomparable key)
//!    3 create table length:u32 json
//!    4 drop table   table:u64
//!    5 add segment  length:u32 json
//!    8 put object   length:u32 json
//!    9 drop object  object:u64
//!   10 sequence     length:u32 json                    (no part of a commit: the record's timestamp is 0)
//!    6 seal                                            (the store was closed in order)
//!    7 alter table  length:u32 json                    (the whole new definition)
//! ```
//! Logical redo: replaying puts and deletes finds the old versions by key, so records never name places that a flush or
//! a compaction may have changed.

use rustydb_txn::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::{TableId, TableRecord};
use crate::error::{Error, Result};
use crate::objects::{ObjectDef, ObjectId};
use crate::segment::{Base64, SegmentMeta};
use crate::sequence::SequenceRecord;

const TAG_PUT: u8 = 1;
const TAG_DELETE: u8 = 2;
const TAG_CREATE_TABLE: u8 = 3;
const TAG_DROP_TABLE: u8 = 4;
const TAG_ADD_SEGMENT: u8 = 5;
const TAG_SEAL: u8 = 6;
const TAG_PUT_OBJECT: u8 = 8;
const TAG_DROP_OBJECT: u8 = 9;
const TAG_SEQUENCE: u8 = 10;
const TAG_ALTER_TABLE: u8 = 7;

/// A segment that a bulk load brought, with the rows the same transaction deleted again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddedSegment {
    pub(crate) meta: SegmentMeta,
    /// A serialized roaring bitmap; empty for none.
    pub(crate) deleted: Base64,
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Operation<'a> {
    Put { table: TableId, row: &'a [u8] },
    Delete { table: TableId, key: &'a [u8] },
    CreateTable(Box<TableRecord>),
    DropTable(TableId),
    AddSegment(Box<AddedSegment>),
    PutObject(Box<ObjectDef>),
    DropObject(ObjectId),
    Sequence(SequenceRecord),
    Seal,
    AlterTable(Box<TableRecord>),
}

/// All changes of one commit.
#[derive(Debug, Clone)]
pub(crate) struct Record<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) operations: Vec<Operation<'a>>,
}

impl<'a> Record<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut writer = RecordWriter::new(out, self.timestamp);
        self.operations.iter().try_for_each(|operation| writer.write(operation))?;
        writer.finish()
    }

    /// Reads a payload whose checksum was right; the message says what is wrong nevertheless.
    #[cfg(test)]
    pub(crate) fn decode(payload: &'a [u8]) -> std::result::Result<Record<'a>, String> {
        let (timestamp, operations) = Operations::of(payload)?;
        Ok(Record { timestamp, operations: operations.collect::<std::result::Result<_, _>>()? })
    }
}

/// The operations of an encoded record, one by one. After one that says what is wrong there is none.
pub(crate) struct Operations<'a> {
    input: Input<'a>,
    left: u32,
}

impl<'a> Operations<'a> {
    /// Begins to read a payload whose checksum was right; also returns its timestamp.
    pub(crate) fn of(payload: &'a [u8]) -> std::result::Result<(Timestamp, Operations<'a>), String> {
        let mut input = Input { rest: payload };
        let (timestamp, left) = (input.u64()?, input.u32()?);
        let operations = Operations { input, left };
        operations.check_end()?;
        Ok((timestamp, operations))
    }

    fn check_end(&self) -> std::result::Result<(), String> {
        match self.input.rest.len() {
            bytes if self.left == 0 && bytes > 0 => Err(format!("{bytes} bytes after the last operation")),
            _ => Ok(()),
        }
    }

    fn read(&mut self) -> std::result::Result<Operation<'a>, String> {
        let input = &mut self.input;
        let operation = match input.u8()? {
            TAG_PUT => Operation::Put { table: TableId(input.u64()?), row: input.bytes()? },
            TAG_DELETE => Operation::Delete { table: TableId(input.u64()?), key: input.bytes()? },
            TAG_CREATE_TABLE => Operation::CreateTable(Box::new(input.json()?)),
            TAG_DROP_TABLE => Operation::DropTable(TableId(input.u64()?)),
            TAG_ADD_SEGMENT => Operation::AddSegment(Box::new(input.json()?)),
            TAG_PUT_OBJECT => Operation::PutObject(Box::new(input.json()?)),
            TAG_DROP_OBJECT => Operation::DropObject(ObjectId(input.u64()?)),
            TAG_SEQUENCE => Operation::Sequence(input.json()?),
            TAG_SEAL => Operation::Seal,
            TAG_ALTER_TABLE => Operation::AlterTable(Box::new(input.json()?)),
            other => return Err(format!("unknown operation {other}")),
        };
        self.left -= 1;
        self.check_end()?;
        Ok(operation)
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = std::result::Result<Operation<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.left > 0).then(|| {
            let read = self.read();
            if read.is_err() {
                self.left = 0;
            }
            read
        })
    }
}

/// Encodes a record operation by operation.
pub(crate) struct RecordWriter<'a> {
    out: &'a mut Vec<u8>,
    count_at: usize,
    count: usize,
}

impl<'a> RecordWriter<'a> {
    /// Begins a record behind what is in `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>, timestamp: Timestamp) -> Self {
        out.extend_from_slice(&timestamp.to_le_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        RecordWriter { out, count_at, count: 0 }
    }

    /// Adds an operation.
    pub(crate) fn write(&mut self, operation: &Operation<'_>) -> Result<()> {
        self.count += 1;
        let out = &mut *self.out;
        match operation {
            Operation::Put { table, row } => write_bytes(out, TAG_PUT, Some(*table), row),
            Operation::Delete { table, key } => write_bytes(out, TAG_DELETE, Some(*table), key),
            Operation::CreateTable(table) => write_bytes(out, TAG_CREATE_TABLE, None, &json(table)?),
            Operation::DropTable(table) => {
                out.push(TAG_DROP_TABLE);
                out.extend_from_slice(&table.0.to_le_bytes());
                Ok(())
            }
            Operation::AddSegment(segment) => write_bytes(out, TAG_ADD_SEGMENT, None, &json(segment)?),
            Operation::PutObject(object) => write_bytes(out, TAG_PUT_OBJECT, None, &json(object)?),
            Operation::DropObject(object) => {
                out.push(TAG_DROP_OBJECT);
                out.extend_from_slice(&object.0.to_le_bytes());
                Ok(())
            }
            Operation::Sequence(sequence) => write_bytes(out, TAG_SEQUENCE, None, &json(sequence)?),
            Operation::Seal => {
                out.push(TAG_SEAL);
                Ok(())
            }
            Operation::AlterTable(table) => write_bytes(out, TAG_ALTER_TABLE, None, &json(table)?),
        }
    }

    /// Ends the record.
    pub(crate) fn finish(self) -> Result<()> {
        self.out[self.count_at..self.count_at + 4].copy_from_slice(&length(self.count)?);
        Ok(())
    }
}

fn length(length: usize) -> Result<[u8; 4]> {
    let length = u32::try_from(length).map_err(|_| Error::TransactionTooLarge { limit_bytes: u32::MAX as usize })?;
    Ok(length.to_le_bytes())
}

fn write_bytes(out: &mut Vec<u8>, tag: u8, table: Option<TableId>, bytes: &[u8]) -> Result<()> {
    out.push(tag);
    if let Some(table) = table {
        out.extend_from_slice(&table.0.to_le_bytes());
    }
    out.extend_from_slice(&length(bytes.len())?);
    out.extend_from_slice(bytes);
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Internal(format!("encoding a log record: {error}")))
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> std::result::Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or("the record ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> std::result::Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> std::result::Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> std::result::Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> std::result::Result<&'a [u8], String> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self) -> std::result::Result<T, String> {
        serde_json::from_slice(self.bytes()?).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let operations = vec![
            Operation::Put { table: TableId(7), row: b"row bytes" },
            Operation::Delete { table: TableId(8), key: b"" },
            Operation::DropTable(TableId(9)),
            Operation::Seal,
        ];
        let mut payload = Vec::new();
        Record { timestamp: 42, operations }.encode(&mut payload).unwrap();
        let record = Record::decode(&payload).unwrap();
        assert_eq!(record.timestamp, 42);
        assert!(matches!(record.operations[0], Operation::Put { table: TableId(7), row: b"row bytes" }));
        assert!(matches!(record.operations[1], Operation::Delete { table: TableId(8), key: b"" }));
        assert!(matches!(record.operations[2], Operation::DropTable(TableId(9))));
        assert!(matches!(record.operations[3], Operation::Seal));
    }

    #[test]
    fn no_prefix_of_a_record_is_taken_for_one() {
        let operations = vec![Operation::Put { table: TableId(7), row: b"row" }, Operation::Seal];
        let mut payload = Vec::new();
        Record { timestamp: 1, operations }.encode(&mut payload).unwrap();
        for end in 0..payload.len() {
            assert!(Record::decode(&payload[..end]).is_err(), "{end} bytes");
        }
        payload.push(0);
        assert!(Record::decode(&payload).is_err());
    }
}
