//! From batches of any origin to rows of a table: columns arranged, types converted, generated columns computed,
//! declarations enforced.
//!
//! Invariant: what leaves [`RowCheck::conform`] has exactly the table's columns and types, no NULL where it is forbidden,
//! no text longer than declared, no time with more digits, and passes every CHECK. Nothing is wrapped around or cut off
//! silently.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal256Array, Int32Array, ListArray, RecordBatch, RecordBatchOptions,
    StringViewBuilder, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{
    DataType, Decimal256Type, DecimalType, Field, Float32Type, Float64Type, Schema, SchemaRef, i256,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_expr::PhysicalExpr;
use rustydb_storage::TableDef;

use super::defaults::compile_over;
use crate::constraints::{checks_of, generated_of, shown_columns};
use crate::error::sqlstate;
use crate::functions::floats::real;
use crate::functions::floats_as_numerics::numerics_of;
use crate::functions::input::{read_texts, reads};
use crate::functions::time_digits::round_to_digits;
use crate::sql::assigned::assigned;
use crate::sql::context::StatementContext;
use crate::sql::nul;
use crate::sql::route::ViewCheck;
use crate::sql::rules::interval::check_durations;
use crate::sql::rules::strict_types::can_cast;
use crate::sql::types::{LENGTH_KEY, arriving_type, digits_of, name_of};
use crate::{Error, Result};

/// The longest a value is shown in an error's detail.
const SHOWN_VALUE_CHARS: usize = 64;

/// Enforces a table's column declarations and CHECK constraints.
pub(crate) struct RowCheck {
    table: Arc<TableDef>,
    /// The n of `varchar(n)` and `varbinary(n)`, by column.
    lengths: Vec<Option<usize>>,
    /// Generated columns and how they are computed from the others.
    generated: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    /// CHECK constraints by name.
    checks: Vec<(String, Arc<dyn PhysicalExpr>)>,
    /// What views WITH CHECK OPTION demand, by their names; NULL does not pass.
    view_checks: Vec<(String, Arc<dyn PhysicalExpr>)>,
    /// The table's columns before anything is known of NULLs.
    lenient: SchemaRef,
    /// The session's time zone.
    zone: String,
}

impl RowCheck {
    pub(crate) fn new(context: &StatementContext, table: &Arc<TableDef>) -> Result<Self> {
        let length = |field: &Arc<Field>| field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok());
        let mut generated = Vec::new();
        for (column, field) in table.schema.fields().iter().enumerate() {
            if let Some(syntax) = generated_of(field)? {
                generated.push((column, compile_over(context, table, syntax, Some(&arriving_type(field)))?));
            }
        }
        let mut checks = Vec::new();
        for check in checks_of(table)? {
            checks.push((check.name.clone(), compile_over(context, table, check.syntax()?, None)?));
        }
        let fields =
            table.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        Ok(RowCheck {
            table: Arc::clone(table),
            lengths: table.schema.fields().iter().map(length).collect(),
            generated,
            checks,
            view_checks: Vec::new(),
            lenient: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            zone: context.zone().to_owned(),
        })
    }

    /// The same for rows that come through views.
    pub(super) fn with_view_checks(mut self, context: &StatementContext, checks: &[ViewCheck]) -> Result<Self> {
        for ViewCheck { view, condition } in checks {
            self.view_checks.push((view.clone(), compile_over(context, &self.table, condition.clone(), None)?));
        }
        Ok(self)
    }

    /// The same rows as the table wants them. `columns` are the table's columns in order, of any castable type; what
    /// they hold in the places of generated columns does not matter, and hidden ones may be missing.
    pub(crate) fn conform(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let mut converted = Vec::with_capacity(columns.len());
        for (index, field) in self.table.schema.fields().iter().enumerate() {
            converted.push(match self.generated.iter().any(|(generated, _)| *generated == index) {
                true => new_null_array(field.data_type(), rows),
                false => {
                    let column = columns.get(index).ok_or_else(|| Error::internal("rows lack a column"))?;
                    self.fit(column, field, self.lengths[index])?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let lenient = |columns| RecordBatch::try_new_with_options(Arc::clone(&self.lenient), columns, &options);
        if !self.generated.is_empty() {
            let base = lenient(converted.clone())?;
            for (index, expression) in &self.generated {
                let value = expression.evaluate(&base)?.into_array(rows)?;
                converted[*index] = self.fit(&value, self.table.schema.field(*index), self.lengths[*index])?;
            }
        }
        let forbidden = |(field, column): (&Arc<Field>, &ArrayRef)| !field.is_nullable() && column.null_count() > 0;
        let failing = self.table.schema.fields().iter().zip(&converted).position(forbidden);
        if let Some(index) = failing {
            let row = (0..rows).find(|row| converted[index].is_null(*row)).unwrap_or_default();
            return Err(self.not_null(self.table.schema.field(index)).with_detail(self.failing_row(&converted, row)?));
        }
        if !self.checks.is_empty() && rows > 0 {
            let base = lenient(converted.clone())?;
            for (name, expression) in &self.checks {
                let passed = expression.evaluate(&base)?.into_array(rows)?;
                let passed = passed.as_boolean_opt().ok_or_else(|| Error::internal("a CHECK that is no boolean"))?;
                if let Some(row) = (0..rows).find(|row| passed.is_valid(*row) && !passed.value(*row)) {
                    let message =
                        format!("new row for table \"{}\" violates check constraint \"{name}\"", self.table.name);
                    return Err(
                        Error::new(sqlstate::CHECK_VIOLATION, message).with_detail(self.failing_row(&converted, row)?)
                    );
                }
            }
        }
        if !self.view_checks.is_empty() && rows > 0 {
            let base = lenient(converted.clone())?;
            for (view, expression) in &self.view_checks {
                let passed = expression.evaluate(&base)?.into_array(rows)?;
                let passed =
                    passed.as_boolean_opt().ok_or_else(|| Error::internal("a condition that is no boolean"))?;
                if let Some(row) = (0..rows).find(|row| passed.is_null(*row) || !passed.value(*row)) {
                    let message = format!("new row violates check option for view \"{view}\"");
                    return Err(Error::new(sqlstate::CHECK_OPTION_VIOLATION, message)
                        .with_detail(self.failing_row(&converted, row)?));
                }
            }
        }
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.table.schema), converted, &options)?)
    }

    fn fit(&self, column: &ArrayRef, field: &Field, length: Option<usize>) -> Result<ArrayRef> {
        let column = &unpacked(column)?;
        let column = match column.data_type().is_binary() && field.data_type().is_string() {
            // In files, and in what drivers send, texts may be columns of bytes.
            true => {
                let texts = cast_exactly(column, field)?;
                nul::check_column(field.name(), &texts)?;
                texts
            }
            false => convert(column, field, &self.zone)?,
        };
        match length {
            Some(length) => limit_length(&column, length, field),
            None => Ok(column),
        }
    }

    fn failing_row(&self, columns: &[ArrayRef], row: usize) -> Result<String> {
        failing_row(&columns[..shown_columns(&self.table)], row)
    }

    fn not_null(&self, field: &Field) -> Error {
        let (column, table) = (field.name(), &self.table.name);
        Error::new(
            sqlstate::NOT_NULL_VIOLATION,
            format!("null value in column \"{column}\" of table \"{table}\" violates not-null constraint"),
        )
    }
}

/// `Failing row contains (1, null, abc).`
fn failing_row(columns: &[ArrayRef], row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("null");
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        let text = ArrayFormatter::try_new(column, &options)?.value(row).to_string();
        values.push(match text.char_indices().nth(SHOWN_VALUE_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        });
    }
    Ok(format!("Failing row contains ({}).", values.join(", ")))
}

/// Casts a column to its field's type, by assignment; a value that does not fit is an error that names the column. What is to be
/// known of the clock is known from the session's time zone.
pub(crate) fn convert(column: &ArrayRef, field: &Field, zone: &str) -> Result<ArrayRef> {
    let Some(digits) = digits_of(field) else { return convert_to_type(column, field, zone) };
    let times = match column.data_type() == field.data_type() {
        true => Arc::clone(column),
        false => convert_to_type(column, &Field::new(field.name(), arriving_type(field), true), zone)?,
    };
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    round_to_digits(&times, digits)
        .and_then(|rounded| Ok(cast_with_options(&rounded, field.data_type(), &exact)?))
        .map_err(|error| error.map_message(|text| format!("column \"{}\": {text}", field.name())))
}

/// The same but for the digits of times, which its Arrow type does not tell.
fn convert_to_type(column: &ArrayRef, field: &Field, zone: &str) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        check_durations(column)?;
        return Ok(Arc::clone(column));
    }
    let column = &unpacked(column)?;
    if *column.data_type() == DataType::Null {
        return Ok(new_null_array(field.data_type(), column.len()));
    }
    if let (DataType::List(_), DataType::List(element)) = (column.data_type(), field.data_type()) {
        let arrays = column.as_list::<i32>();
        let of_elements = Field::new(field.name(), element.data_type().clone(), true);
        let of_elements = of_elements.with_metadata(element.metadata().clone());
        let (values, offsets) = elements_of(arrays)?;
        let values = convert(&values, &of_elements, zone)?;
        return Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, arrays.nulls().cloned())?));
    }
    if let Some(assigned) = assigned(column, field.data_type(), zone) {
        return assigned.map_err(|error| error.map_message(|text| format!("column \"{}\": {text}", field.name())));
    }
    if let DataType::FixedSizeBinary(_) = field.data_type() {
        // Arrow has casts to it neither from texts nor from views.
        if column.data_type().is_string() {
            return read_texts(column, field.data_type())
                .map_err(|error| error.map_message(|text| format!("column \"{}\": {text}", field.name())));
        }
        if *column.data_type() == DataType::BinaryView {
            return cast_exactly(&cast_with_options(column, &DataType::Binary, &CastOptions::default())?, field);
        }
    }
    // Arrow would print rows as a text that nobody can read back.
    let is_printed = column.data_type().is_nested() && field.data_type().is_string();
    if is_printed || !can_cast(column.data_type(), field.data_type()) {
        return Err(Error::new(
            sqlstate::TYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but the value is of type {}",
                field.name(),
                name_of(field.data_type()),
                name_of(column.data_type())
            ),
        ));
    }
    if column.data_type().is_string() && reads(field.data_type()) {
        return read_texts(column, field.data_type())
            .map_err(|error| error.map_message(|text| format!("column \"{}\": {text}", field.name())));
    }
    cast_exactly(column, field)
}

/// The elements of the arrays, and where they end. A slice has the elements of the arrays around it as well, and a NULL may
/// have some: they are no values, and none may be refused for what it is.
fn elements_of(arrays: &ListArray) -> Result<(ArrayRef, OffsetBuffer<i32>)> {
    let (values, offsets) = (arrays.values(), arrays.offsets());
    let lengths = || {
        (0..arrays.len()).map(|row| if arrays.is_null(row) { 0 } else { (offsets[row + 1] - offsets[row]) as usize })
    };
    let (start, end) = (offsets[0] as usize, offsets[arrays.len()] as usize);
    if lengths().sum::<usize>() != end - start {
        let places = (0..arrays.len()).filter(|row| arrays.is_valid(*row));
        let places = Int32Array::from_iter_values(places.flat_map(|row| offsets[row]..offsets[row + 1]));
        return Ok((take(values, &places, None)?, OffsetBuffer::from_lengths(lengths())));
    }
    match end - start == values.len() {
        true => Ok((Arc::clone(values), offsets.clone())),
        false => Ok((values.slice(start, end - start), OffsetBuffer::from_lengths(lengths()))),
    }
}

/// Arrow's cast, but for fractions that become whole numbers, doubles that are too large for a real, and floats that become
/// numerics.
fn cast_exactly(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let named = |error: Error| error.map_message(|text| format!("column \"{}\": {text}", field.name()));
    match (values_of(column.data_type()), field.data_type()) {
        (DataType::Float64, DataType::Float32) => {
            let doubles = cast_with_options(column, &DataType::Float64, &exact)?;
            let reals = doubles.as_primitive::<Float64Type>().try_unary::<_, Float32Type, Error>(real);
            return Ok(Arc::new(reals.map_err(named)?));
        }
        (float @ (DataType::Float32 | DataType::Float64), DataType::Decimal128(precision, scale)) => {
            let floats = cast_with_options(column, float, &exact)?;
            return numerics_of(&floats, *precision, *scale).map_err(named);
        }
        _ => {}
    }
    let column = checked_decimals(column).map_err(named)?;
    rounded_for(&column, field.data_type())
        .and_then(|column| cast_with_options(&column, field.data_type(), &exact))
        .map_err(|error| named(Error::from(error)))
}

/// Decimals of 256 bits that have no more digits than their type says, and zeros under NULLs: Arrow's cast to fewer bits relies on
/// the one, and looks at what lies under NULLs as well. Everything else is as it was.
fn checked_decimals(column: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Decimal256(precision, _) = values_of(column.data_type()) else { return Ok(Arc::clone(column)) };
    let plain = match column.data_type() {
        DataType::Decimal256(_, _) => Arc::clone(column),
        _ => cast_with_options(column, values_of(column.data_type()), &CastOptions::default())?,
    };
    let numbers = plain.as_primitive::<Decimal256Type>();
    if numbers.iter().flatten().any(|number| !Decimal256Type::is_valid_decimal_precision(number, *precision)) {
        return Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "numeric field overflow"));
    }
    if numbers.null_count() == 0 {
        return Ok(plain);
    }
    let values: Vec<i256> = numbers.iter().map(Option::unwrap_or_default).collect();
    let cleared = Decimal256Array::new(values.into(), numbers.nulls().cloned());
    Ok(Arc::new(cleared.with_data_type(plain.data_type().clone())))
}

/// The type of the values, be they in a dictionary or in runs.
fn values_of(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values_of(values),
        DataType::RunEndEncoded(_, values) => values_of(values.data_type()),
        other => other,
    }
}

/// Texts and bytes of a dictionary or of runs as views, which share them: Arrow's cast to another type would write each of them
/// as often as there are rows that have it. And a dictionary's values, if one of them is NULL: Arrow's cast to a view takes only
/// the NULLs among the keys for NULL.
fn unpacked(column: &ArrayRef) -> Result<ArrayRef> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        let values = viewed(dictionary.values())?;
        let is_other = values.data_type() != dictionary.values().data_type();
        if is_view(&values) || is_other || column.logical_null_count() > column.null_count() {
            return Ok(take(&values, dictionary.keys(), None)?);
        }
    }
    if let Some(runs) = column.as_any_ree_opt() {
        let values = viewed(runs.values())?;
        if is_view(&values) || values.data_type() != runs.values().data_type() {
            let shared = runs.with_values(Arc::clone(&values));
            return Ok(cast_with_options(&shared, values.data_type(), &CastOptions::default())?);
        }
    }
    Ok(Arc::clone(column))
}

fn is_view(values: &ArrayRef) -> bool {
    matches!(values.data_type(), DataType::Utf8View | DataType::BinaryView)
}

/// Texts and bytes as views, and those of a dictionary or of runs out of it.
pub(crate) fn viewed(values: &ArrayRef) -> Result<ArrayRef> {
    let view = match values.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        _ => return unpacked(values),
    };
    Ok(cast_with_options(values, &view, &CastOptions::default())?)
}

/// Fractions become whole numbers by rounding, as in a cast; arrow's cast would cut them off.
fn rounded_for(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if !target.is_integer() {
        return Ok(Arc::clone(column));
    }
    match column.data_type() {
        DataType::Float32 => {
            Ok(Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even)))
        }
        DataType::Float64 => {
            Ok(Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)))
        }
        DataType::Decimal128(_, 1..) => {
            cast_with_options(column, &DataType::Decimal128(38, 0), &CastOptions::default())
        }
        _ => Ok(Arc::clone(column)),
    }
}

/// Fails with 22001 for text or bytes longer than declared. As the standard wants it, blanks beyond the length are cut off.
fn limit_length(column: &ArrayRef, length: usize, field: &Field) -> Result<ArrayRef> {
    if let Some(values) = column.as_binary_view_opt() {
        return match values.iter().flatten().find(|bytes| bytes.len() > length) {
            Some(bytes) => Err(Error::new(
                sqlstate::STRING_TOO_LONG,
                format!("value too long for column \"{}\" of {length} bytes", field.name()),
            )
            .with_detail(format!("The value has {} bytes.", bytes.len()))),
            None => Ok(Arc::clone(column)),
        };
    }
    let Some(texts) = column.as_string_view_opt() else { return Ok(Arc::clone(column)) };
    // A text has at most as many characters as bytes, and the byte length is at hand.
    let beyond = |text: &str| text.len() > length && text.chars().nth(length).is_some();
    let mut cut = false;
    for text in texts.iter().flatten() {
        if beyond(text) {
            let rest = text.chars().skip(length);
            if !rest.clone().all(|letter| letter == ' ') {
                let found = text.chars().count();
                return Err(Error::new(
                    sqlstate::STRING_TOO_LONG,
                    format!("value too long for column \"{}\" of {length} characters", field.name()),
                )
                .with_detail(format!("The value has {found} characters.")));
            }
            cut = true;
        }
    }
    if !cut {
        return Ok(Arc::clone(column));
    }
    let mut builder = StringViewBuilder::with_capacity(texts.len());
    for text in texts.iter() {
        builder.append_option(text.map(|text| match text.char_indices().nth(length) {
            Some((end, _)) => &text[..end],
            None => text,
        }));
    }
    Ok(Arc::new(builder.finish()))
}

/// Where a table's column comes from when rows are loaded.
pub(crate) enum ColumnSource {
    /// A column of the incoming batches.
    Incoming(usize),
    /// An expression without columns: the column's default.
    Default(Arc<dyn PhysicalExpr>),
    /// NULL in every row.
    Null,
}

/// Arranges incoming columns in a table's order and fills the rest.
pub(crate) struct Arrangement {
    sources: Vec<ColumnSource>,
}

impl Arrangement {
    pub(crate) fn new(sources: Vec<ColumnSource>) -> Self {
        Arrangement { sources }
    }

    /// The table's columns for the rows of `batch`.
    pub(crate) fn arrange(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = batch.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        self.sources
            .iter()
            .map(|source| match source {
                ColumnSource::Incoming(index) => Ok(Arc::clone(batch.column(*index))),
                ColumnSource::Default(expression) => Ok(expression.evaluate(&nothing)?.into_array(rows)?),
                ColumnSource::Null => Ok(new_null_array(&DataType::Null, rows)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryViewArray, DictionaryArray, Int8Array, LargeStringArray, RunArray, StringViewArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Decimal128Type, Int32Type};

    use super::*;

    fn arrays_of_texts(texts: &[&str], lengths: &[usize], nulls: Option<NullBuffer>) -> ListArray {
        let element = Arc::new(Field::new_list_field(DataType::Utf8View, true));
        let texts = Arc::new(StringViewArray::from_iter_values(texts));
        ListArray::new(element, OffsetBuffer::from_lengths(lengths.iter().copied()), texts, nulls)
    }

    fn numbers(arrays: ListArray) -> Result<Vec<Option<Vec<i32>>>> {
        let arrays: ArrayRef = Arc::new(arrays);
        let converted =
            convert(&arrays, &Field::new_list("c", Field::new_list_field(DataType::Int32, true), true), "UTC")?;
        let elements = |array: ArrayRef| array.as_primitive::<Int32Type>().values().to_vec();
        Ok(converted.as_list::<i32>().iter().map(|array| array.map(elements)).collect())
    }

    #[test]
    fn elements_outside_of_a_slice_are_not_converted() {
        let arrays = arrays_of_texts(&["x", "1", "2", "3", "y"], &[1, 2, 0, 1, 1], None);
        assert_eq!(numbers(arrays.clone()).unwrap_err().sqlstate(), "22P02");
        assert_eq!(numbers(arrays.slice(1, 3)).unwrap(), [Some(vec![1, 2]), Some(vec![]), Some(vec![3])]);
        assert_eq!(numbers(arrays.slice(2, 1)).unwrap(), [Some(vec![])]);
        assert!(numbers(arrays.slice(5, 0)).unwrap().is_empty());
    }

    #[test]
    fn uuids_are_assigned_from_texts_and_bytes() {
        let uuids = Field::new("u", DataType::FixedSizeBinary(16), true);
        let texts = |text: &str| -> ArrayRef { Arc::new(StringViewArray::from(vec![Some(text), None])) };
        let read = convert(&texts("00000000-0000-0000-0000-0000000000ff"), &uuids, "UTC").unwrap();
        let last: Vec<u8> = std::iter::repeat_n(0, 15).chain([255]).collect();
        let bytes: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(last.as_slice()), None]));
        assert_eq!(&convert(&bytes, &uuids, "UTC").unwrap(), &read);
        assert_eq!(read.as_fixed_size_binary().value(0)[15], 255);
        assert!(read.is_null(1));
        assert_eq!(convert(&texts("ff"), &uuids, "UTC").unwrap_err().sqlstate(), "22P02");
        let short: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(&b"ff"[..])]));
        assert!(convert(&short, &uuids, "UTC").is_err());
    }

    #[test]
    fn a_long_text_of_many_rows_is_not_written_for_each() {
        // As often as there are rows, they would be half a gigabyte.
        let long = "x".repeat(1 << 16);
        let words: ArrayRef = Arc::new(LargeStringArray::from(vec![Some(long.as_str()), None]));
        let rows = 1 << 14;
        let keys = Int8Array::from_iter_values((0..rows).map(|row| (row % 2) as i8));
        let ends = Int32Array::from(vec![rows - 1, rows]);
        let columns: [ArrayRef; 2] = [
            Arc::new(DictionaryArray::new(keys, Arc::clone(&words))),
            Arc::new(RunArray::<Int32Type>::try_new(&ends, &words).unwrap()),
        ];
        for column in columns {
            let texts = convert(&column, &Field::new("c", DataType::Utf8View, true), "UTC").unwrap();
            assert!(texts.get_buffer_memory_size() < 1 << 20);
            assert_eq!(texts.as_string_view().value(0), long);
            assert!(texts.is_null(rows as usize - 1));
        }
    }

    #[test]
    fn what_lies_under_a_null_is_no_number() {
        let numbers = |values: Vec<i256>| {
            let nulls = NullBuffer::from(vec![false, true]);
            Decimal256Array::new(values.into(), Some(nulls)).with_precision_and_scale(20, 2).unwrap()
        };
        let wanted = Field::new("c", DataType::Decimal128(20, 2), true);
        let hidden = numbers(vec![i256::MAX, i256::from(150)]);
        let keys = Int32Array::from(vec![1, 0]);
        let columns: [ArrayRef; 2] =
            [Arc::new(hidden.clone()), Arc::new(DictionaryArray::new(keys, Arc::new(hidden)).slice(1, 1))];
        let plain = convert(&columns[0], &wanted, "UTC").unwrap();
        assert!(plain.is_null(0) && plain.as_primitive::<Decimal128Type>().value(1) == 150);
        assert!(convert(&columns[1], &wanted, "UTC").unwrap().is_null(0));
        let shown: ArrayRef = Arc::new(numbers(vec![i256::from(1), i256::MAX]));
        assert_eq!(convert(&shown, &wanted, "UTC").unwrap_err().sqlstate(), "22003");
    }

    #[test]
    fn elements_beneath_a_null_are_not_converted() {
        let nulls = NullBuffer::from(vec![true, false, true]);
        let arrays = arrays_of_texts(&["1", "x", "2"], &[1, 1, 1], Some(nulls));
        assert_eq!(numbers(arrays.clone()).unwrap(), [Some(vec![1]), None, Some(vec![2])]);
        assert_eq!(numbers(arrays.slice(1, 2)).unwrap(), [None, Some(vec![2])]);
    }
}
