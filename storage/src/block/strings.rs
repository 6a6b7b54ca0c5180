//! A block of strings or binaries that do not repeat: all their bytes, one value behind the other, and where each ends.
//!
//! ```text
//!   bytes   │first│second value│third│…
//!   ends     5     17           22  …        4 bytes a value (Arrow's offsets)
//! ```
//! Arrow's views, which the engine computes with, would take 16 bytes a value, and a look-up of one value that is longer than
//! twelve bytes would ask for three places in memory, one after the other: the view, the list of buffers, the buffer. Here it is two,
//! and one where all values are equally long (`char(n)`): then where a value lies follows from its number. Scans make views of the
//! values they want; the bytes of long ones stay where they are and are shared.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, ByteView, GenericByteArray, GenericByteViewArray,
    StringArray, StringViewArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ByteArrayType, ByteViewType, DataType};

use super::{SPARSE_SHARE, Selection};
use crate::encoding::RawValue;
use crate::error::Result;

/// Values of one block.
#[derive(Debug)]
pub(super) struct Strings {
    values: Values,
    /// The length of each value, if they all have the same and none is NULL.
    width: Option<usize>,
}

#[derive(Debug)]
enum Values {
    Text(StringArray),
    Binary(BinaryArray),
}

impl Strings {
    /// The values of an array of views; `None` for arrays of other types, and for values that are too large to lie in one
    /// buffer.
    pub(super) fn new(array: &ArrayRef) -> Result<Option<Strings>> {
        let values = match array.data_type() {
            DataType::Utf8View => together(array.as_string_view())?.map(Values::Text),
            DataType::BinaryView => together(array.as_binary_view())?.map(Values::Binary),
            _ => None,
        };
        Ok(values.map(|values| Strings { width: values.width(), values }))
    }

    /// The bytes of a value; `None` is NULL.
    #[inline]
    pub(super) fn get(&self, row: usize) -> RawValue<'_> {
        if let Some(width) = self.width {
            return Some(&self.values.bytes()[row * width..(row + 1) * width]);
        }
        if self.values.array().is_null(row) {
            return None;
        }
        let ends = self.values.ends();
        Some(&self.values.bytes()[ends[row] as usize..ends[row + 1] as usize])
    }

    /// The selected values, as views.
    pub(super) fn select(&self, selection: &Selection) -> Result<ArrayRef> {
        if selection.is_full() {
            return Ok(self.values.to_views());
        }
        if selection.count() < self.values.array().len() / SPARSE_SHARE {
            let chosen = selection.predicate().filter(self.values.array())?;
            return Ok(match &self.values {
                Values::Text(_) => Arc::new(StringViewArray::from(chosen.as_string::<i32>())),
                Values::Binary(_) => Arc::new(BinaryViewArray::from(chosen.as_binary::<i32>())),
            });
        }
        selection.of_array(&self.values.to_views())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.values.array().get_array_memory_size()
    }
}

impl Values {
    fn array(&self) -> &dyn Array {
        match self {
            Values::Text(array) => array,
            Values::Binary(array) => array,
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Values::Text(array) => array.value_data(),
            Values::Binary(array) => array.value_data(),
        }
    }

    #[inline]
    fn ends(&self) -> &[i32] {
        match self {
            Values::Text(array) => array.value_offsets(),
            Values::Binary(array) => array.value_offsets(),
        }
    }

    fn to_views(&self) -> ArrayRef {
        match self {
            Values::Text(array) => Arc::new(StringViewArray::from(array)),
            Values::Binary(array) => Arc::new(BinaryViewArray::from(array)),
        }
    }

    fn width(&self) -> Option<usize> {
        let ends = self.ends();
        let width = ends.get(1)? - ends[0];
        let is_even = self.array().null_count() == 0 && ends.windows(2).all(|pair| pair[1] - pair[0] == width);
        is_even.then_some(width as usize)
    }
}

/// Copies values together. NULLs have no bytes.
fn together<T, V>(views: &GenericByteViewArray<V>) -> Result<Option<GenericByteArray<T>>>
where
    T: ByteArrayType<Offset = i32, Native = V::Native>,
    V: ByteViewType,
{
    // The view of a NULL may be that of any value.
    let length = |(row, view): (usize, &u128)| match views.is_null(row) {
        true => 0,
        false => u64::from(ByteView::from(*view).length),
    };
    let Ok(all_bytes) = i32::try_from(views.views().iter().enumerate().map(length).sum::<u64>()) else {
        return Ok(None);
    };
    let mut bytes = Vec::with_capacity(all_bytes as usize);
    let mut ends = Vec::with_capacity(views.len() + 1);
    ends.push(0);
    for value in views {
        bytes.extend_from_slice(value.map(AsRef::as_ref).unwrap_or_default());
        ends.push(bytes.len() as i32);
    }
    let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Some(GenericByteArray::try_new(ends, bytes.into(), views.nulls().cloned())?))
}

#[cfg(test)]
mod tests {
    use arrow::compute::filter;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::kernel::Mask;

    fn check(array: ArrayRef) -> Strings {
        let strings = Strings::new(&array).unwrap().expect("views");
        assert_eq!(&strings.select(&Selection::new(Mask::all(array.len()))).unwrap(), &array);
        for row in 0..array.len() {
            let expected = match array.data_type() {
                _ if array.is_null(row) => None,
                DataType::Utf8View => Some(array.as_string_view().value(row).as_bytes()),
                _ => Some(array.as_binary_view().value(row)),
            };
            assert_eq!(strings.get(row), expected, "row {row}");
        }
        for step in [1, 2, 5, 40] {
            let mut mask = Mask::all(array.len()).inverted();
            (0..array.len()).step_by(step).for_each(|row| mask.insert(row));
            let expected = filter(&array, &mask.to_boolean()).unwrap();
            assert_eq!(&strings.select(&Selection::new(mask)).unwrap(), &expected, "every {step}th");
        }
        strings
    }

    #[test]
    fn values_of_all_lengths_come_back_alone_and_together() {
        for seed in 0..if cfg!(miri) { 2 } else { 40 } {
            let mut random = StdRng::seed_from_u64(seed);
            let (rows, longest) = (random.random_range(0..200), random.random_range(1..40));
            let nulls = random.random_bool(0.5);
            let texts: Vec<Option<String>> = (0..rows)
                .map(|_| {
                    let length = random.random_range(0..longest);
                    let text = (0..length).map(|_| ['a', 'é', '漢', '😀'][random.random_range(0..4)]).collect();
                    (!nulls || random.random_bool(0.7)).then_some(text)
                })
                .collect();
            check(Arc::new(StringViewArray::from_iter(texts.iter().map(Option::as_deref))));
            let binaries = texts.iter().map(|text| text.as_ref().map(|text| [text.as_bytes(), &[0xff]].concat()));
            check(Arc::new(BinaryViewArray::from_iter(binaries)));
        }
    }

    #[test]
    fn equal_lengths_are_seen_and_nulls_are_none_of_them() {
        let of = |values: &[Option<&str>]| check(Arc::new(StringViewArray::from_iter(values.iter().copied()))).width;
        assert_eq!(of(&[Some("abc"), Some("def")]), Some(3));
        assert_eq!(of(&[Some(""), Some("")]), Some(0));
        assert_eq!(of(&[Some("abc"), Some("é")]), None);
        assert_eq!(of(&[Some("abc"), None, Some("def")]), None);
        assert_eq!(of(&[None, None]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_lies_under_a_null_takes_no_memory() {
        let texts = StringViewArray::from_iter_values((0..100).map(|row| format!("{row:0500}")));
        let nulls = Some((0..100).map(|row| row % 10 == 0).collect());
        let texts = StringViewArray::new(texts.views().clone(), texts.data_buffers().to_vec(), nulls);
        let strings = check(Arc::new(texts));
        assert!(strings.memory_bytes() < 7000, "{} bytes", strings.memory_bytes());
    }

    #[test]
    fn what_is_a_slice_of_other_values_keeps_only_its_own() {
        let all = StringViewArray::from_iter_values((0..1000).map(|row| format!("a text that is unique: {row:04}")));
        let strings = check(Arc::new(all.slice(500, 10)));
        assert_eq!(strings.width, Some(27));
        assert!(strings.memory_bytes() < 1000, "{} bytes", strings.memory_bytes());
    }
}
