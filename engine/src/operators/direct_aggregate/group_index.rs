//! Numbers for groups: from the values of the group columns to 0, 1, 2, … in order of appearance.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};

/// Assigns numbers to groups.
pub(crate) trait GroupIndex: Send {
    /// Writes the number of each row's group into `groups`, which it clears first.
    fn assign(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()>;

    /// How many groups there are.
    fn len(&self) -> usize;

    /// The group columns' values, a row per group, in order of the groups' numbers.
    fn keys(&self) -> Result<Vec<ArrayRef>>;

    /// Memory in use.
    fn bytes(&self) -> usize;
}

/// Slots of a page: 16 KiB.
const PAGE_SLOTS: usize = 4096;

/// One integer column with values in `low..low + span`, most of which occur.
pub(super) struct IntegerIndex {
    data_type: DataType,
    low: i64,
    span: u64,
    /// Group + 1 of each value; a page is made when its first value comes, so that partitions that see different parts of
    /// the range do not pay for the whole.
    pages: Vec<Option<Box<[u32; PAGE_SLOTS]>>>,
    pages_used: usize,
    /// Values outside the range.
    strays: HashMap<i64, u32>,
    null_group: Option<u32>,
    values: Vec<i64>,
}

impl IntegerIndex {
    pub(super) fn new(data_type: DataType, low: i64, span: u64) -> Self {
        let pages = (span as usize).div_ceil(PAGE_SLOTS);
        IntegerIndex {
            data_type,
            low,
            span,
            pages: vec![None; pages],
            pages_used: 0,
            strays: HashMap::new(),
            null_group: None,
            values: Vec::new(),
        }
    }

    /// Whether columns of this type can be indexed: their values fit an i64 without loss.
    pub(super) fn supports(data_type: &DataType) -> bool {
        matches!(
            data_type,
            DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt8
                | DataType::UInt16
                | DataType::UInt32
                | DataType::Date32
        )
    }

    fn group_of(&mut self, value: i64) -> u32 {
        let offset = value.wrapping_sub(self.low) as u64;
        let next = self.values.len() as u32;
        let group = if offset < self.span {
            let (page, slot) = (offset as usize / PAGE_SLOTS, offset as usize % PAGE_SLOTS);
            let pages_used = &mut self.pages_used;
            let page = self.pages[page].get_or_insert_with(|| {
                *pages_used += 1;
                Box::new([0; PAGE_SLOTS])
            });
            if page[slot] == 0 {
                page[slot] = next + 1;
            }
            page[slot] - 1
        } else {
            *self.strays.entry(value).or_insert(next)
        };
        if group == next {
            self.values.push(value);
        }
        group
    }

    fn assign_values<T: ArrowPrimitiveType>(&mut self, array: &PrimitiveArray<T>, groups: &mut Vec<usize>)
    where
        T::Native: Into<i64>,
    {
        // Keys often come in runs: rows of one order, of one customer.
        let mut last: Option<(i64, usize)> = None;
        for row in 0..array.len() {
            if array.is_null(row) {
                groups.push(self.group_of_null());
                continue;
            }
            let value: i64 = array.value(row).into();
            let group = match last {
                Some((known, group)) if known == value => group,
                _ => self.group_of(value) as usize,
            };
            last = Some((value, group));
            groups.push(group);
        }
    }

    fn group_of_null(&mut self) -> usize {
        let next = self.values.len() as u32;
        let group = *self.null_group.get_or_insert(next);
        if group == next {
            // A place among the values; `keys` makes it a NULL again.
            self.values.push(self.low);
        }
        group as usize
    }
}

impl GroupIndex for IntegerIndex {
    fn assign(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        groups.clear();
        let [column] = columns else { return Err(internal("one group column")) };
        if self.values.len() + column.len() >= u32::MAX as usize {
            return Err(DataFusionError::ResourcesExhausted("more than 4 billion groups".into()));
        }
        groups.reserve(column.len());
        match column.data_type() {
            DataType::Int64 => self.assign_values(column.as_primitive::<Int64Type>(), groups),
            DataType::Int32 => self.assign_values(column.as_primitive::<arrow::datatypes::Int32Type>(), groups),
            DataType::Date32 => self.assign_values(column.as_primitive::<arrow::datatypes::Date32Type>(), groups),
            _ => self.assign_values(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>(), groups),
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn keys(&self) -> Result<Vec<ArrayRef>> {
        let null_group = self.null_group.map(|group| group as usize);
        let values = self.values.iter().enumerate().map(|(group, value)| (Some(group) != null_group).then_some(*value));
        let values: PrimitiveArray<Int64Type> = match null_group {
            None => self.values.clone().into(),
            Some(_) => values.collect(),
        };
        // Date32 is reached by way of its own integers.
        let values: ArrayRef = match self.data_type {
            DataType::Date32 => cast(&values, &DataType::Int32)?,
            _ => std::sync::Arc::new(values),
        };
        Ok(vec![cast(&values, &self.data_type)?])
    }

    fn bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Option<Box<[u32; PAGE_SLOTS]>>>()
            + self.pages_used * size_of::<[u32; PAGE_SLOTS]>()
            + self.strays.capacity() * 24
            + self.values.capacity() * size_of::<i64>()
    }
}

/// What a column of a small key may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnDomain {
    /// The number of codes, NULL's included.
    pub(crate) codes: u32,
}

impl ColumnDomain {
    /// Codes for about `distinct` values and for NULL. Estimates err, and slots are cheap: there are some to spare.
    pub(crate) fn of_distinct(distinct: f64, spare: u32) -> Self {
        ColumnDomain { codes: (distinct * 1.5) as u32 + spare }
    }
}

/// A few columns of few values each.
pub(super) struct SmallIndex {
    types: Vec<DataType>,
    coders: Vec<Coder>,
    /// Group + 1 of each combination of codes.
    slots: Vec<u32>,
    /// Combinations with a value for which its column had no code left.
    strays: HashMap<Box<[u8]>, u32>,
    keys: Vec<Vec<ScalarValue>>,
    key_bytes: usize,
    codes: Vec<u32>,
}

impl SmallIndex {
    pub(super) fn new(types: Vec<DataType>, domains: &[ColumnDomain]) -> Self {
        let slots = domains.iter().map(|domain| domain.codes as usize).product();
        SmallIndex {
            coders: domains.iter().map(|domain| Coder::new(domain.codes)).collect(),
            keys: vec![Vec::new(); types.len()],
            types,
            slots: vec![0; slots],
            strays: HashMap::new(),
            key_bytes: 0,
            codes: Vec::new(),
        }
    }

    /// Whether columns of this type can be coded: by their bytes.
    pub(super) fn supports(data_type: &DataType) -> bool {
        matches!(data_type, DataType::Utf8 | DataType::Utf8View) || IntegerIndex::supports(data_type)
    }

    fn new_group(&mut self, columns: &[ArrayRef], row: usize) -> Result<u32> {
        let group = self.keys[0].len() as u32;
        for (keys, column) in self.keys.iter_mut().zip(columns) {
            let value = ScalarValue::try_from_array(column, row)?;
            self.key_bytes += value.size();
            keys.push(value);
        }
        Ok(group)
    }
}

impl GroupIndex for SmallIndex {
    fn assign(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        groups.clear();
        let rows = columns.first().map_or(0, |column| column.len());
        groups.reserve(rows);
        // Codes are combined column by column: code 0 of the first column, then the others' as digits.
        let mut codes = std::mem::take(&mut self.codes);
        codes.clear();
        codes.resize(rows, 0);
        for (coder, column) in self.coders.iter_mut().zip(columns) {
            coder.combine(column, &mut codes)?;
        }
        let mut stray = Vec::new();
        for (row, code) in codes.iter().enumerate() {
            if *code == Coder::STRAY {
                stray.clear();
                columns.iter().try_for_each(|column| append_value(column, row, &mut stray))?;
                let group = match self.strays.get(stray.as_slice()) {
                    Some(group) => *group,
                    None => {
                        let group = self.new_group(columns, row)?;
                        self.key_bytes += 48 + stray.len();
                        self.strays.insert(stray.as_slice().into(), group);
                        group
                    }
                };
                groups.push(group as usize);
                continue;
            }
            let slot = *code as usize;
            if self.slots[slot] == 0 {
                self.slots[slot] = self.new_group(columns, row)? + 1;
            }
            groups.push(self.slots[slot] as usize - 1);
        }
        self.codes = codes;
        Ok(())
    }

    fn len(&self) -> usize {
        self.keys[0].len()
    }

    fn keys(&self) -> Result<Vec<ArrayRef>> {
        let column = |(keys, data_type): (&Vec<ScalarValue>, &DataType)| match keys.is_empty() {
            true => Ok(arrow::array::new_empty_array(data_type)),
            false => ScalarValue::iter_to_array(keys.iter().cloned()),
        };
        self.keys.iter().zip(&self.types).map(column).collect()
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
            + self.key_bytes
            + self.coders.iter().map(Coder::bytes).sum::<usize>()
            + self.codes.capacity() * size_of::<u32>()
    }
}

/// Appends a value so that no two rows of values read alike: NULL or not, length, bytes.
fn append_value(column: &ArrayRef, row: usize, to: &mut Vec<u8>) -> Result<()> {
    to.push(u8::from(column.is_valid(row)));
    if column.is_null(row) {
        return Ok(());
    }
    let mut append = |bytes: &[u8]| {
        to.extend_from_slice(&bytes.len().to_le_bytes());
        to.extend_from_slice(bytes);
    };
    match column.data_type() {
        DataType::Utf8 => append(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Utf8View => append(column.as_string_view().value(row).as_bytes()),
        DataType::Int64 => append(&column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Int32 => append(&column.as_primitive::<arrow::datatypes::Int32Type>().value(row).to_le_bytes()),
        _ => {
            let value = cast(&column.slice(row, 1), &DataType::Int64)?;
            append(&value.as_primitive::<Int64Type>().value(0).to_le_bytes());
        }
    }
    Ok(())
}

/// Codes for the values of one column: 0 for NULL, then 1, 2, … in order of appearance, found in a small open-addressing
/// table. A value of up to 12 bytes is its own key, in the form in which Arrow's string views hold it; of a longer one the
/// key is the length and the first bytes, and the rest is compared.
struct Coder {
    codes: u32,
    /// Twice as many slots as there are codes.
    table: Vec<Slot>,
    /// The values by code, without NULL's.
    values: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy)]
struct Slot {
    key: u128,
    /// 0: empty.
    code: u32,
}

impl Coder {
    /// The combined code of a row one of whose columns has no code.
    const STRAY: u32 = u32::MAX;

    fn new(codes: u32) -> Self {
        let slots = (codes.max(2) as usize * 2).next_power_of_two();
        Coder { codes, table: vec![Slot { key: 0, code: 0 }; slots], values: Vec::new() }
    }

    fn bytes(&self) -> usize {
        self.table.capacity() * size_of::<Slot>() + self.values.iter().map(|value| 16 + value.len()).sum::<usize>()
    }

    /// Appends this column's code as the last digit of each row's number.
    fn combine(&mut self, column: &ArrayRef, combined: &mut [u32]) -> Result<()> {
        match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                self.combine_codes(combined, column.as_ref(), |coder, row| coder.code(texts.value(row).as_bytes()));
            }
            DataType::Utf8View => {
                let texts = column.as_string_view();
                let views = texts.views();
                self.combine_codes(combined, column.as_ref(), |coder, row| match views[row] as u32 <= INLINE_BYTES {
                    true => coder.code_of_key(views[row], || texts.value(row).as_bytes(), false),
                    false => coder.code(texts.value(row).as_bytes()),
                });
            }
            _ => {
                let numbers = cast(column, &DataType::Int64)?;
                let numbers = numbers.as_primitive::<Int64Type>();
                let bytes: Vec<[u8; 8]> = numbers.values().iter().map(|number| number.to_le_bytes()).collect();
                self.combine_codes(combined, numbers, |coder, row| coder.code(&bytes[row]));
            }
        }
        Ok(())
    }

    fn combine_codes(&mut self, combined: &mut [u32], column: &dyn Array, code: impl Fn(&mut Self, usize) -> u32) {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, number) in combined.iter_mut().enumerate() {
            let code = match nulls {
                Some(nulls) if nulls.is_null(row) => 0,
                _ => code(self, row),
            };
            *number = match code {
                Self::STRAY => Self::STRAY,
                _ if *number == Self::STRAY => Self::STRAY,
                code => *number * self.codes + code,
            };
        }
    }

    fn code(&mut self, bytes: &[u8]) -> u32 {
        let length = bytes.len();
        let mut key = [0; 16];
        key[..4].copy_from_slice(&(length as u32).to_le_bytes());
        let own = length.min(INLINE_BYTES as usize);
        key[4..4 + own].copy_from_slice(&bytes[..own]);
        self.code_of_key(u128::from_le_bytes(key), || bytes, length > INLINE_BYTES as usize)
    }

    /// The code of the value with this key. `long`: the key is not all of it.
    #[inline]
    fn code_of_key<'a>(&mut self, key: u128, value: impl Fn() -> &'a [u8], long: bool) -> u32 {
        let mask = self.table.len() - 1;
        let mixed = ((key as u64) ^ ((key >> 64) as u64).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = (mixed >> 32) as usize & mask;
        loop {
            let slot = self.table[at];
            if slot.code == 0 {
                break;
            }
            if slot.key == key && (!long || *self.values[slot.code as usize - 1] == *value()) {
                return slot.code;
            }
            at = (at + 1) & mask;
        }
        let code = self.values.len() as u32 + 1;
        if code >= self.codes {
            return Self::STRAY;
        }
        self.values.push(value().into());
        self.table[at] = Slot { key, code };
        code
    }
}

/// The longest string that Arrow's views hold in themselves.
const INLINE_BYTES: u32 = 12;

fn internal(what: &str) -> DataFusionError {
    DataFusionError::Internal(format!("direct aggregation: {what} expected"))
}
