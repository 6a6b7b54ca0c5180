//! From record batches to Arrow messages: in the announced schema, in sensible sizes, their buffers as they are.
//!
//! A large batch keeps its buffers, which are sent from where they lie. The rows of a short answer are copied into one
//! buffer instead: for a few hundred bytes keeping them apart costs more than the copy. And what is the same in all short
//! answers of a statement is made once ([`crate::short`]).
//!
//! Invariants: messages are about [`MESSAGE_BYTES_TARGET`], measured on the rows sent, not on the buffers they are a slice
//! of. Each message is complete in itself: the announced schema has no dictionaries, which would come before.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, StreamEncoder,
};
use arrow::record_batch::RecordBatch;
use tonic::Status;

use crate::short::ShortRows;
use crate::status::internal;
use crate::stream::{Compression, Message};
use crate::wire::{Announced, convert};

/// Large enough that the cost per message disappears, small enough for the 4 MiB limit that gRPC clients start with.
pub(crate) const MESSAGE_BYTES_TARGET: usize = 2 << 20;

/// Rows of this many bytes are copied together.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// What comes before each message of an Arrow stream: a continuation mark, and the length of the metadata.
const STREAM_PREFIX_BYTES: usize = 8;

/// Makes messages of batches.
pub(crate) struct Encoder {
    schema: SchemaRef,
    options: IpcWriteOptions,
    /// `None`: messages are compressed.
    short: Option<Arc<ShortRows>>,
    small: Small,
    /// There once it is needed.
    large: Option<StreamEncoder>,
}

/// Encodes by copying.
struct Small {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    pub(crate) fn new(announced: &Announced, compression: Compression) -> Result<Self, Status> {
        let options = IpcWriteOptions::default().try_with_compression(compression).map_err(internal)?;
        let small = Small {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
        };
        let short = compression.is_none().then(|| Arc::clone(&announced.short));
        Ok(Self { schema: Arc::clone(&announced.schema), options, short, small, large: None })
    }

    /// The messages of a batch whose schema is equivalent to the one that was announced.
    pub(crate) fn encode(&mut self, batch: RecordBatch, messages: &mut VecDeque<Message>) -> Result<(), Status> {
        if let Some(message) = self.short.as_ref().and_then(|short| short.encode(&self.schema, &batch)) {
            messages.push_back(message);
            return Ok(());
        }
        let mut pieces = Vec::with_capacity(1);
        // Cut before converting: a piece is then far from the 2 GiB of text that a Utf8 array can hold.
        split(batch, &mut pieces);
        for (piece, bytes) in pieces {
            let piece = convert(&piece, &self.schema)?;
            messages.push_back(match bytes <= COPIED_BYTES_MAX {
                true => self.copied(&piece)?,
                false => self.as_it_lies(&piece)?,
            });
        }
        Ok(())
    }

    /// The message of a batch without rows.
    pub(crate) fn encode_none(&mut self) -> Result<Message, Status> {
        let none = RecordBatch::new_empty(Arc::clone(&self.schema));
        self.copied(&none)
    }

    fn copied(&mut self, piece: &RecordBatch) -> Result<Message, Status> {
        let Small { generator, dictionaries, context } = &mut self.small;
        let (before, encoded) = generator.encode(piece, dictionaries, &self.options, context).map_err(internal)?;
        if !before.is_empty() {
            return Err(internal("an announced schema has dictionaries"));
        }
        let EncodedData { ipc_message, arrow_data } = encoded;
        if let Some(short) = &self.short
            && piece.num_rows() > 0
        {
            short.learn(&self.schema, &ipc_message);
        }
        Ok(Message::new(ipc_message.into(), vec![Buffer::from_vec(arrow_data)]))
    }

    fn as_it_lies(&mut self, piece: &RecordBatch) -> Result<Message, Status> {
        let is_first = self.large.is_none();
        let large = match &mut self.large {
            Some(large) => large,
            none => {
                none.insert(StreamEncoder::try_new_with_options(&self.schema, self.options.clone()).map_err(internal)?)
            }
        };
        let mut pieces = Pieces(large.encode(piece).map_err(internal)?.into());
        if is_first {
            // It puts the schema before its first batch, which was sent already.
            pieces.message()?;
        }
        let message = pieces.message()?;
        match pieces.is_empty() {
            true => Ok(message),
            false => Err(internal("an announced schema has dictionaries")),
        }
    }
}

/// Buffers that are one sequence of bytes: Arrow messages.
struct Pieces(VecDeque<Buffer>);

impl Pieces {
    fn is_empty(&self) -> bool {
        self.0.iter().all(Buffer::is_empty)
    }

    fn message(&mut self) -> Result<Message, Status> {
        let prefix = self.take_together(STREAM_PREFIX_BYTES)?;
        let length = prefix.last_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
        let header = self.take_together(length as usize)?;
        let body_length = root_as_message(&header).map_err(internal)?.bodyLength();
        let body = self.take(usize::try_from(body_length).map_err(internal)?)?;
        Ok(Message::new(header.into(), body))
    }

    /// The next bytes, as they lie.
    fn take(&mut self, mut length: usize) -> Result<Vec<Buffer>, Status> {
        let mut taken = Vec::with_capacity(self.0.len());
        while length > 0 {
            let next = self.0.pop_front().ok_or_else(|| internal("an Arrow message is shorter than it says"))?;
            if next.len() > length {
                self.0.push_front(next.slice(length));
                taken.push(next.slice_with_length(0, length));
                break;
            }
            length -= next.len();
            taken.push(next);
        }
        Ok(taken)
    }

    /// The next bytes, copied together.
    fn take_together(&mut self, length: usize) -> Result<Vec<u8>, Status> {
        let mut together = Vec::with_capacity(length);
        for buffer in self.take(length)? {
            together.extend_from_slice(&buffer);
        }
        Ok(together)
    }
}

/// Cuts a batch into pieces of sensible size, each with its bytes.
fn split(batch: RecordBatch, pieces: &mut Vec<(RecordBatch, usize)>) {
    let bytes: usize = batch.columns().iter().map(slice_bytes).sum();
    if bytes <= MESSAGE_BYTES_TARGET || batch.num_rows() <= 1 {
        pieces.push((batch, bytes));
        return;
    }
    // As many equal pieces as are needed if rows were alike; where they are not, the large piece is cut again.
    let rows = (batch.num_rows() / bytes.div_ceil(MESSAGE_BYTES_TARGET)).max(1);
    for start in (0..batch.num_rows()).step_by(rows) {
        split(batch.slice(start, rows.min(batch.num_rows() - start)), pieces);
    }
}

/// Bytes of the rows in this slice, on the wire.
fn slice_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().lengths().map(|length| length as usize + 4).sum(),
        DataType::BinaryView => column.as_binary_view().lengths().map(|length| length as usize + 4).sum(),
        // These are written out; their keys say nothing about that size, their values at least something.
        DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _) => column.get_array_memory_size(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    }
}
