//! Memcomparable keys.
//!
//! Column by column, in key order: integers big-endian with the sign bit flipped, floats in total order (with one zero
//! and one NaN), booleans as a byte, text and binaries escaped (`00` → `00 FF`) and ended with `00 00`, so that a
//! prefix sorts first. Columns that may be NULL (primary keys have none, secondary indexes may) are preceded by a byte
//! that says whether they are; NULLs sort last, as in PostgreSQL.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::physical::Physical;
use super::row::{RawValue, RowLayout};
use crate::error::{Error, Result};

/// Longest key, in encoded bytes: keys are kept in memory, by the memtable and the key indexes.
const KEY_BYTES_MAX: usize = 4096;

/// Precedes a value of a column that may be NULL.
const PRESENT: u8 = 0x01;
/// Stands for a NULL.
const NULL: u8 = 0x02;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const TERMINATOR: u8 = 0x00;

/// Makes keys of one table, from arrays or from encoded rows.
#[derive(Debug, Clone)]
pub(crate) struct KeyEncoder {
    /// Row columns the key is made of, in key order.
    columns: Vec<usize>,
    physicals: Vec<Physical>,
    /// Which columns may be NULL.
    nullable: Vec<bool>,
    /// Length of every key if no column is variable or may be NULL.
    stride: Option<usize>,
    /// The columns, if all of them are integers of four or eight bytes, as most keys are: nothing has to be asked about each
    /// value of these.
    integers: Option<Vec<Integer>>,
}

/// A key column of integers, none of them NULL.
#[derive(Debug, Clone, Copy)]
struct Integer {
    column: usize,
    /// Where it lies in a row.
    offset: usize,
    is_wide: bool,
    is_signed: bool,
}

impl Integer {
    fn of(layout: &RowLayout, column: usize) -> Option<Integer> {
        let is_signed = match layout.physical(column) {
            Physical::Signed(_) | Physical::Decimal64 => true,
            Physical::Unsigned(_) => false,
            _ => return None,
        };
        let width = layout.physical(column).width();
        let is_one = (width == 4 || width == 8) && !layout.schema().field(column).is_nullable();
        is_one.then(|| Integer { column, offset: layout.offset(column), is_wide: width == 8, is_signed })
    }

    /// Appends the value that a row has; `None` if it has none.
    #[inline]
    fn append(self, row: &[u8], key: &mut Vec<u8>) -> Option<()> {
        if row.get(self.column / 8)? >> (self.column % 8) & 1 == 1 {
            return None;
        }
        self.append_value(row.get(self.offset..)?, key)
    }

    /// Appends the value that these bytes begin with; `None` if they are too few.
    #[inline]
    fn append_value(self, value: &[u8], key: &mut Vec<u8>) -> Option<()> {
        match self.is_wide {
            true => {
                let sign = u64::from(self.is_signed) << (u64::BITS - 1);
                key.extend_from_slice(&(u64::from_le_bytes(*value.first_chunk()?) ^ sign).to_be_bytes());
            }
            false => {
                let sign = u32::from(self.is_signed) << (u32::BITS - 1);
                key.extend_from_slice(&(u32::from_le_bytes(*value.first_chunk()?) ^ sign).to_be_bytes());
            }
        }
        Some(())
    }
}

impl KeyEncoder {
    /// The encoder for key `columns` of rows with this layout.
    pub(crate) fn new(layout: &RowLayout, columns: &[usize]) -> Result<Self> {
        let physicals: Vec<Physical> = columns.iter().map(|column| layout.physical(*column)).collect();
        if let Some(at) = physicals.iter().position(|physical| *physical == Physical::Interval) {
            let field = layout.schema().field(columns[at]);
            return Err(Error::Unsupported(format!(
                "column \"{}\": an interval cannot be part of a key",
                field.name()
            )));
        }
        let nullable: Vec<bool> = columns.iter().map(|column| layout.schema().field(*column).is_nullable()).collect();
        let widths = physicals.iter().zip(&nullable).map(|(physical, nullable)| match physical {
            Physical::Variable => None,
            fixed => (!nullable).then(|| fixed.width()),
        });
        let stride: Option<usize> = widths.sum();
        let integers = columns.iter().map(|column| Integer::of(layout, *column)).collect();
        let integers = if stride.is_some_and(|stride| stride <= KEY_BYTES_MAX) { integers } else { None };
        Ok(KeyEncoder { columns: columns.to_vec(), stride, physicals, nullable, integers })
    }

    /// The columns of the row that the key is made of, in key order.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The encoder for the first `count` key columns; its keys are prefixes of this one's.
    pub(crate) fn prefix(&self, count: usize) -> KeyEncoder {
        let (columns, physicals) = (self.columns[..count].to_vec(), self.physicals[..count].to_vec());
        let integers = self.integers.as_ref().map(|integers| integers[..count].to_vec());
        KeyEncoder { columns, physicals, nullable: self.nullable[..count].to_vec(), stride: None, integers }
    }

    /// Whether the key column at this position may be NULL.
    pub(crate) fn is_nullable(&self, position: usize) -> bool {
        self.nullable[position]
    }

    /// The byte that precedes the values of a column that may be NULL, and the one that stands for a NULL.
    pub(crate) const fn markers() -> (u8, u8) {
        (PRESENT, NULL)
    }

    /// A sequence of keys of this encoder's, without any yet.
    pub(crate) fn no_keys(&self) -> Keys {
        let bounds = self.stride.map_or(Bounds::Ends(Vec::new()), Bounds::Stride);
        Keys { bytes: Vec::new(), rows: 0, bounds }
    }

    /// Encodes the keys of all rows; `columns` are the key columns in key order, with NULLs only where they are allowed.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<Keys> {
        let rows = columns.first().map_or(0, |column| column.len());
        if let Some(stride) = self.stride {
            let mut bytes = vec![0; rows * stride];
            let mut offset = 0;
            for (column, physical) in columns.iter().zip(&self.physicals) {
                write_fixed(column, &mut bytes, offset, stride)?;
                offset += physical.width();
            }
            return Ok(Keys { bytes, rows, bounds: Bounds::Stride(stride) });
        }
        let mut fixed = Vec::with_capacity(columns.len());
        for (column, physical) in columns.iter().zip(&self.physicals) {
            let mut bytes = Vec::new();
            if *physical != Physical::Variable {
                bytes.resize(rows * physical.width(), 0);
                write_fixed(column, &mut bytes, 0, physical.width())?;
            }
            fixed.push(bytes);
        }
        let mut keys = Keys { bytes: Vec::new(), rows: 0, bounds: Bounds::Ends(Vec::with_capacity(rows)) };
        for row in 0..rows {
            let start = keys.bytes.len();
            for (index, physical) in self.physicals.iter().enumerate() {
                if self.nullable[index] {
                    let is_null = columns[index].is_null(row);
                    keys.bytes.push(if is_null { NULL } else { PRESENT });
                    if is_null {
                        continue;
                    }
                }
                match physical {
                    Physical::Variable => escape(variable_value(&columns[index], row)?, &mut keys.bytes),
                    fixed_width => {
                        let width = fixed_width.width();
                        keys.bytes.extend_from_slice(&fixed[index][row * width..(row + 1) * width]);
                    }
                }
            }
            keys.end_row(start)?;
        }
        Ok(keys)
    }

    /// Encodes the key of an encoded row into `key`, which is cleared first.
    pub(crate) fn encode_row(&self, layout: &RowLayout, row: &[u8], key: &mut Vec<u8>) -> Result<()> {
        key.clear();
        self.append_row(layout, row, key)
    }

    /// Fails if the key of an encoded row cannot be made, without making it.
    pub(crate) fn check_row(&self, layout: &RowLayout, row: &[u8]) -> Result<()> {
        let length = |of_variable: fn(&[u8]) -> usize| -> Result<usize> {
            let mut length = 0;
            for (part, column) in self.columns.iter().enumerate() {
                length += usize::from(self.nullable[part]);
                length += match (layout.value(row, *column), self.physicals[part]) {
                    (Some(value), Physical::Variable) => of_variable(value),
                    (Some(_), fixed) => fixed.width(),
                    (None, _) if self.nullable[part] => 0,
                    (None, _) => return Err(Error::Internal(format!("NULL in key column {column}"))),
                };
            }
            Ok(length)
        };
        // Nearly always even the longest that it could be is short enough.
        if length(|value| 2 * value.len() + 2)? <= KEY_BYTES_MAX {
            return Ok(());
        }
        check_length(length(|value| value.len() + value.iter().filter(|byte| **byte == ESCAPE).count() + 2)?)
    }

    /// Appends the key of an encoded row to `key`.
    pub(crate) fn append_row(&self, layout: &RowLayout, row: &[u8], key: &mut Vec<u8>) -> Result<()> {
        let beginning = key.len();
        if let Some(integers) = &self.integers {
            if integers.iter().try_for_each(|integer| integer.append(row, key)).is_some() {
                return Ok(());
            }
            // There is a NULL; below it is said where.
            key.truncate(beginning);
        }
        for (part, column) in self.columns.iter().enumerate() {
            self.encode_part(part, layout.value(row, *column), key)?;
        }
        check_length(key.len() - beginning)
    }

    /// Appends the value of one key column, as a row has it, to the parts of the key before it.
    #[inline]
    pub(crate) fn encode_part(&self, part: usize, value: RawValue<'_>, key: &mut Vec<u8>) -> Result<()> {
        if let (Some(integers), Some(value)) = (&self.integers, value)
            && let Some(()) = integers[part].append_value(value, key)
        {
            return Ok(());
        }
        self.encode_any_part(part, value, key)
    }

    fn encode_any_part(&self, part: usize, value: RawValue<'_>, key: &mut Vec<u8>) -> Result<()> {
        let nullable = self.nullable[part];
        if nullable {
            key.push(if value.is_some() { PRESENT } else { NULL });
        }
        let Some(value) = value else {
            let column = self.columns[part];
            return if nullable { Ok(()) } else { Err(Error::Internal(format!("NULL in key column {column}"))) };
        };
        match self.physicals[part] {
            Physical::Variable => escape(value, key),
            Physical::Boolean | Physical::Fixed(_) => key.extend_from_slice(value),
            Physical::Unsigned(_) => extend_reversed(value, key),
            Physical::Signed(_) | Physical::Decimal64 | Physical::Decimal128 => {
                let start = key.len();
                extend_reversed(value, key);
                key[start] ^= 0x80;
            }
            Physical::Float32 => {
                let bits = value.try_into().map_err(|_| Error::Internal("a float of other than 4 bytes".into()))?;
                key.extend_from_slice(&ordered_f32(f32::from_le_bytes(bits)).to_be_bytes());
            }
            Physical::Float64 => {
                let bits = value.try_into().map_err(|_| Error::Internal("a float of other than 8 bytes".into()))?;
                key.extend_from_slice(&ordered_f64(f64::from_le_bytes(bits)).to_be_bytes());
            }
            Physical::Interval => return Err(Error::Internal("an interval in a key".into())),
        }
        Ok(())
    }

    /// Whether any column of an encoded row's key is NULL.
    pub(crate) fn has_null(&self, layout: &RowLayout, row: &[u8]) -> bool {
        self.columns.iter().any(|column| layout.value(row, *column).is_none())
    }
}

/// Printed values of the key of one row, for messages.
pub(crate) fn format_key(columns: &[ArrayRef], row: usize) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let print = |column: &ArrayRef| match ArrayFormatter::try_new(column.as_ref(), &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => format!("<{error}>"),
    };
    columns.iter().map(print).collect()
}

#[derive(Debug, Clone)]
enum Bounds {
    /// Every key has this many bytes.
    Stride(usize),
    /// Where each key ends.
    Ends(Vec<u32>),
}

/// Many keys in one buffer.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    rows: usize,
    bounds: Bounds,
}

impl Keys {
    /// Keys that were encoded one by one.
    pub(crate) fn of<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Keys> {
        let mut gathered = Keys { bytes: Vec::new(), rows: 0, bounds: Bounds::Ends(Vec::new()) };
        keys.into_iter().try_for_each(|key| gathered.push(key))?;
        Ok(gathered)
    }

    /// Adds a key, which is of the same kind as the others.
    pub(crate) fn push(&mut self, key: &[u8]) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.end_row(start)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let range = match &self.bounds {
            Bounds::Stride(stride) => index * stride..(index + 1) * stride,
            Bounds::Ends(ends) => {
                let start = if index == 0 { 0 } else { ends[index - 1] as usize };
                start..ends[index] as usize
            }
        };
        &self.bytes[range]
    }

    pub(crate) fn first(&self) -> Option<&[u8]> {
        (self.rows > 0).then(|| self.get(0))
    }

    pub(crate) fn last(&self) -> Option<&[u8]> {
        self.rows.checked_sub(1).map(|last| self.get(last))
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let bounds = match &self.bounds {
            Bounds::Stride(_) => 0,
            Bounds::Ends(ends) => ends.capacity() * size_of::<u32>(),
        };
        self.bytes.capacity() + bounds
    }

    /// Where the first pair of neighbours that is not strictly ascending stands (the index of its second key).
    pub(crate) fn first_disorder(&self) -> Option<usize> {
        (1..self.rows).find(|index| self.get(index - 1) >= self.get(*index))
    }

    /// The order of the keys, as row numbers; equal keys stay in the order they came.
    pub(crate) fn sort_order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.rows as u32).collect();
        match self.bounds {
            // Sorting numbers in place beats chasing pointers into the buffer.
            Bounds::Stride(stride) if stride <= 16 => {
                let mut numbers: Vec<(u128, u32)> =
                    order.iter().map(|row| (self.as_number(*row as usize), *row)).collect();
                numbers.sort_unstable();
                order.iter_mut().zip(numbers).for_each(|(slot, (_, row))| *slot = row);
            }
            _ => order.sort_by(|left, right| self.get(*left as usize).cmp(self.get(*right as usize))),
        }
        order
    }

    fn as_number(&self, index: usize) -> u128 {
        let key = self.get(index);
        let mut bytes = [0; 16];
        bytes[16 - key.len()..].copy_from_slice(key);
        u128::from_be_bytes(bytes)
    }

    /// The same keys in another order.
    pub(crate) fn take(&self, order: &[u32]) -> Keys {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut ends = Vec::new();
        for row in order {
            bytes.extend_from_slice(self.get(*row as usize));
            if matches!(self.bounds, Bounds::Ends(_)) {
                ends.push(bytes.len() as u32);
            }
        }
        let bounds = match self.bounds {
            Bounds::Stride(stride) => Bounds::Stride(stride),
            Bounds::Ends(_) => Bounds::Ends(ends),
        };
        Keys { bytes, rows: order.len(), bounds }
    }

    /// These keys, which are of the same kind as `self`, in one sequence.
    pub(crate) fn gather<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>) -> Result<Keys> {
        let bounds = match &self.bounds {
            Bounds::Stride(stride) => Bounds::Stride(*stride),
            Bounds::Ends(_) => Bounds::Ends(Vec::new()),
        };
        let mut gathered = Keys { bytes: Vec::new(), rows: 0, bounds };
        keys.try_for_each(|key| gathered.push(key))?;
        Ok(gathered)
    }

    /// The row of `key` among ascending keys.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let at = self.lower_bound(key, 0..self.rows);
        (at < self.rows && self.get(at) == key).then_some(at)
    }

    /// The first row from `start` on whose key is at least `key`, among ascending keys: it is looked for in steps that double.
    pub(crate) fn lower_bound_near(&self, key: &[u8], start: usize) -> usize {
        let (mut low, mut at, mut step) = (start, start, 1);
        while at < self.rows {
            if self.get(at) >= key {
                return self.lower_bound(key, low..at);
            }
            (low, at, step) = (at + 1, at + step, step * 2);
        }
        self.lower_bound(key, low..self.rows)
    }

    /// The first row in `range` of ascending keys whose key is at least `key`.
    pub(crate) fn lower_bound(&self, key: &[u8], range: Range<usize>) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The first key (its row here) that these ascending keys have in common with others, if both rows count.
    pub(crate) fn first_match(&self, others: &Keys, counts: impl Fn(u32, u32) -> bool) -> Option<usize> {
        let (mut row, mut other) = (0, 0);
        while row < self.len() && other < others.len() {
            // A binary search for the next candidate: ranges that hardly overlap are skipped in a few steps.
            match self.get(row).cmp(others.get(other)) {
                Ordering::Less => row = self.lower_bound(others.get(other), row + 1..self.len()),
                Ordering::Greater => other = others.lower_bound(self.get(row), other + 1..others.len()),
                Ordering::Equal if counts(row as u32, other as u32) => return Some(row),
                Ordering::Equal => {
                    row += 1;
                    other += 1;
                }
            }
        }
        None
    }

    /// Joins chunks of keys of one table into one sequence.
    pub(crate) fn concat(chunks: &[Keys]) -> Result<Keys> {
        let bounds = match chunks.first().map(|chunk| &chunk.bounds) {
            Some(Bounds::Stride(stride)) => Bounds::Stride(*stride),
            _ => Bounds::Ends(Vec::new()),
        };
        let mut joined = Keys { bytes: Vec::new(), rows: 0, bounds };
        for chunk in chunks {
            let start = joined.bytes.len();
            joined.bytes.extend_from_slice(&chunk.bytes);
            joined.rows += chunk.rows;
            if let (Bounds::Ends(ends), Bounds::Ends(more)) = (&mut joined.bounds, &chunk.bounds) {
                for end in more {
                    ends.push(key_end(start + *end as usize)?);
                }
            }
        }
        Ok(joined)
    }

    fn end_row(&mut self, start: usize) -> Result<()> {
        let end = self.bytes.len();
        check_length(end - start)?;
        self.rows += 1;
        if let Bounds::Ends(ends) = &mut self.bounds {
            ends.push(key_end(end)?);
        }
        Ok(())
    }
}

fn check_length(bytes: usize) -> Result<()> {
    if bytes > KEY_BYTES_MAX {
        return Err(Error::Unsupported(format!("a key of {bytes} bytes; keys have at most {KEY_BYTES_MAX}")));
    }
    Ok(())
}

fn key_end(end: usize) -> Result<u32> {
    u32::try_from(end).map_err(|_| Error::Unsupported("more than 4 GiB of keys in one batch".into()))
}

/// Appends a little-endian number big-endian; those of usual widths at once.
fn extend_reversed(value: &[u8], key: &mut Vec<u8>) {
    if let Ok(bytes) = value.try_into() {
        key.extend_from_slice(&u64::from_le_bytes(bytes).to_be_bytes());
    } else if let Ok(bytes) = value.try_into() {
        key.extend_from_slice(&u32::from_le_bytes(bytes).to_be_bytes());
    } else {
        key.extend(value.iter().rev());
    }
}

fn escape(value: &[u8], key: &mut Vec<u8>) {
    for byte in value {
        key.push(*byte);
        if *byte == ESCAPE {
            key.push(ESCAPED_ZERO);
        }
    }
    key.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

/// Bits that order as the floats do; both zeros are one, all NaNs are one and sort last, as in PostgreSQL.
fn ordered_f64(value: f64) -> u64 {
    let canonical = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = canonical.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The 32-bit twin of [`ordered_f64`].
fn ordered_f32(value: f32) -> u32 {
    let canonical = if value.is_nan() { f32::NAN } else { value + 0.0 };
    let bits = canonical.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn variable_value(column: &ArrayRef, row: usize) -> Result<&[u8]> {
    match column.data_type() {
        DataType::Utf8View => Ok(column.as_string_view().value(row).as_bytes()),
        DataType::BinaryView => Ok(column.as_binary_view().value(row)),
        other => Err(Error::Internal(format!("{other} is no variable key type"))),
    }
}

/// Writes a column of constant width at `offset` of every `stride` bytes.
fn write_fixed(column: &ArrayRef, bytes: &mut [u8], offset: usize, stride: usize) -> Result<()> {
    macro_rules! write {
        ($values:expr, $encode:expr) => {{
            for (slot, value) in bytes.chunks_exact_mut(stride).zip($values) {
                let encoded = $encode(value);
                slot[offset..offset + encoded.len()].copy_from_slice(&encoded);
            }
        }};
        (signed $type:ty, $native:ty) => {
            write!(column.as_primitive::<$type>().values().iter(), |value: &$native| (*value ^ <$native>::MIN)
                .to_be_bytes())
        };
        (unsigned $type:ty, $native:ty) => {
            write!(column.as_primitive::<$type>().values().iter(), |value: &$native| value.to_be_bytes())
        };
    }
    match column.data_type() {
        DataType::Boolean => write!(column.as_boolean().values().iter(), |value| [u8::from(value)]),
        DataType::Int8 => write!(signed Int8Type, i8),
        DataType::Int16 => write!(signed Int16Type, i16),
        DataType::Int32 => write!(signed Int32Type, i32),
        DataType::Date32 => write!(signed Date32Type, i32),
        DataType::Int64 => write!(signed Int64Type, i64),
        DataType::Time64(TimeUnit::Microsecond) => write!(signed Time64MicrosecondType, i64),
        DataType::Time64(TimeUnit::Nanosecond) => write!(signed Time64NanosecondType, i64),
        DataType::Duration(TimeUnit::Second) => write!(signed DurationSecondType, i64),
        DataType::Duration(TimeUnit::Millisecond) => write!(signed DurationMillisecondType, i64),
        DataType::Duration(TimeUnit::Microsecond) => write!(signed DurationMicrosecondType, i64),
        DataType::Duration(TimeUnit::Nanosecond) => write!(signed DurationNanosecondType, i64),
        DataType::Timestamp(TimeUnit::Second, _) => write!(signed TimestampSecondType, i64),
        DataType::Timestamp(TimeUnit::Millisecond, _) => write!(signed TimestampMillisecondType, i64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => write!(signed TimestampMicrosecondType, i64),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => write!(signed TimestampNanosecondType, i64),
        DataType::UInt8 => write!(unsigned UInt8Type, u8),
        DataType::UInt16 => write!(unsigned UInt16Type, u16),
        DataType::UInt32 => write!(unsigned UInt32Type, u32),
        DataType::UInt64 => write!(unsigned UInt64Type, u64),
        DataType::Float32 => {
            write!(column.as_primitive::<Float32Type>().values().iter(), |value: &f32| ordered_f32(*value)
                .to_be_bytes())
        }
        DataType::Float64 => {
            write!(column.as_primitive::<Float64Type>().values().iter(), |value: &f64| ordered_f64(*value)
                .to_be_bytes())
        }
        DataType::Decimal128(_, _) => {
            let values = column.as_primitive::<Decimal128Type>().values().iter();
            match Physical::of(column.data_type()) {
                Some(Physical::Decimal64) => write!(values, |value: &i128| (*value as i64 ^ i64::MIN).to_be_bytes()),
                _ => write!(values, |value: &i128| (*value ^ i128::MIN).to_be_bytes()),
            }
        }
        DataType::FixedSizeBinary(_) => {
            let values = column.as_fixed_size_binary();
            for (row, slot) in bytes.chunks_exact_mut(stride).enumerate() {
                let value = values.value(row);
                slot[offset..offset + value.len()].copy_from_slice(value);
            }
        }
        other => return Err(Error::Internal(format!("{other} cannot be part of a key"))),
    }
    Ok(())
}
