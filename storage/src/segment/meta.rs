//! What the manifest and the log say about a segment, without opening it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::catalog::TableId;

/// Bytes as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Base64).map_err(serde::de::Error::custom)
    }
}

/// A byte range of the file and the checksum of what was written there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkRef {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

/// One column of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColumnMeta {
    pub(crate) chunk: ChunkRef,
    pub(crate) null_count: u64,
    /// Whether the bounds are values that occur, not just bounds.
    pub(crate) bounds_exact: bool,
    /// A sketch of its distinct values; absent in segments of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) distinct: Option<Base64>,
}

/// A segment file, described completely enough to plan, prune and verify without touching it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    /// Unique in the store for ever; also the file's name.
    pub(crate) id: u64,
    pub(crate) table: TableId,
    pub(crate) rows: u32,
    pub(crate) file_bytes: u64,
    /// Everything after the column chunks: page index and Parquet footer.
    pub(crate) tail: ChunkRef,
    pub(crate) columns: Vec<ColumnMeta>,
    /// A row of each column's lower bound, in the table's row encoding; NULL where unknown.
    pub(crate) minimums: Base64,
    /// A row of each column's upper bound.
    pub(crate) maximums: Base64,
    /// Encoded keys of the first and the last row.
    pub(crate) first_key: Base64,
    pub(crate) last_key: Base64,
}

/// Folder of all segment files.
pub(crate) const SEGMENT_DIRECTORY: &str = "segments";

impl SegmentMeta {
    /// Where the file lies: `segments/<table>/<segment>.parquet`.
    pub(crate) fn path(&self) -> String {
        format!("{SEGMENT_DIRECTORY}/{}/{:012}.parquet", self.table.0, self.id)
    }

    /// Whether `key` lies between the first and the last key.
    pub(crate) fn may_contain(&self, key: &[u8]) -> bool {
        self.first_key.0.as_slice() <= key && key <= self.last_key.0.as_slice()
    }

    /// Whether the key ranges have a key in common.
    pub(crate) fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        self.first_key.0.as_slice() <= last && first <= self.last_key.0.as_slice()
    }
}
