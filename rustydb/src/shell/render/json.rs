//! One JSON array per result, one object per row and line.
//!
//! ```text
//! [
//! {"id":1,"name":"Ada","price":123.45},
//! {"id":2,"name":null,"price":0.10}
//! ]
//! ```
//!
//! The whole is one JSON text, so `json.load` reads it; each row has its own line, so line tools can too. Integers and
//! decimals are JSON numbers with every digit (a reader that wants them exact parses numbers as decimals); NaN and the
//! infinities, which JSON lacks, are strings, as PostgreSQL writes them. Binary is a string of hexadecimal digits;
//! dates, times, intervals are ISO strings; lists are arrays, structs and maps are objects.

use super::{RenderError, Renderer};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, LargeListArray, ListArray, MapArray, RecordBatch,
    StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::Write as _;
use std::io::Write;

pub(crate) struct JsonRenderer {
    /// `"name":` of each column, escaped once.
    keys: Vec<String>,
    rows: u64,
}

impl JsonRenderer {
    pub(crate) fn new(schema: &SchemaRef) -> JsonRenderer {
        let keys = schema.fields().iter().map(|field| key_text(field.name())).collect();
        JsonRenderer { keys, rows: 0 }
    }
}

impl Renderer for JsonRenderer {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), RenderError> {
        let columns: Vec<Encoder<'_>> =
            batch.columns().iter().map(|array| Encoder::of(array.as_ref())).collect::<Result<_, _>>()?;
        let mut lines = String::new();
        for row in 0..batch.num_rows() {
            lines.push_str(if self.rows == 0 { "[\n{" } else { ",\n{" });
            self.rows += 1;
            for (column, (key, encoder)) in self.keys.iter().zip(&columns).enumerate() {
                if column > 0 {
                    lines.push(',');
                }
                lines.push_str(key);
                encoder.append(row, &mut lines)?;
            }
            lines.push('}');
        }
        out.write_all(lines.as_bytes())?;
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        out.write_all(if self.rows == 0 { b"[]\n" } else { b"\n]\n" })?;
        Ok(())
    }
}

/// One array ready to be written value by value. Built once per batch, not per value: choosing the form by type is
/// the slow part.
struct Encoder<'a> {
    nulls: Option<NullBuffer>,
    form: Form<'a>,
}

enum Form<'a> {
    Boolean(&'a BooleanArray),
    /// Text that is a JSON number as it stands: integers and decimals.
    Number(ArrayFormatter<'a>),
    Float(Box<dyn Fn(usize) -> f64 + 'a>, ArrayFormatter<'a>),
    Text(ArrayFormatter<'a>),
    List(Box<Encoder<'a>>, Box<dyn Fn(usize) -> std::ops::Range<usize> + 'a>),
    Struct(Vec<(String, Encoder<'a>)>),
    Map(Box<Encoder<'a>>, Box<Encoder<'a>>, &'a MapArray),
}

impl<'a> Encoder<'a> {
    fn of(array: &'a dyn Array) -> Result<Encoder<'a>, RenderError> {
        let formatter = || ArrayFormatter::try_new(array, &FormatOptions::new().with_display_error(false));
        let form = match array.data_type() {
            DataType::Boolean => Form::Boolean(array.as_boolean()),
            DataType::Float16 => {
                let values = array.as_primitive::<Float16Type>();
                Form::Float(Box::new(|row| values.value(row).to_f64()), formatter()?)
            }
            DataType::Float32 => {
                let values = array.as_primitive::<Float32Type>();
                Form::Float(Box::new(|row| f64::from(values.value(row))), formatter()?)
            }
            DataType::Float64 => {
                let values = array.as_primitive::<Float64Type>();
                Form::Float(Box::new(|row| values.value(row)), formatter()?)
            }
            data_type if data_type.is_numeric() => Form::Number(formatter()?),
            DataType::List(_) => Form::list(array.as_list::<i32>())?,
            DataType::LargeList(_) => Form::large_list(array.as_list::<i64>())?,
            DataType::FixedSizeList(_, _) => Form::fixed_size_list(array.as_fixed_size_list())?,
            DataType::Struct(_) => Form::structure(array.as_struct())?,
            DataType::Map(_, _) => Form::map(array.as_map())?,
            _ => Form::Text(formatter()?),
        };
        Ok(Encoder { nulls: array.logical_nulls(), form })
    }

    fn append(&self, row: usize, json: &mut String) -> Result<(), RenderError> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            json.push_str("null");
            return Ok(());
        }
        match &self.form {
            Form::Boolean(array) => json.push_str(if array.value(row) { "true" } else { "false" }),
            Form::Number(formatter) => formatter.value(row).write(json)?,
            Form::Float(value, formatter) => match value(row) {
                value if value.is_finite() => formatter.value(row).write(json)?,
                value if value.is_nan() => json.push_str("\"NaN\""),
                value => json.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
            },
            Form::Text(formatter) => {
                let mut text = String::new();
                formatter.value(row).write(&mut text)?;
                push_string(&text, json);
            }
            Form::List(items, range) => {
                json.push('[');
                let range = range(row);
                for item in range.clone() {
                    if item > range.start {
                        json.push(',');
                    }
                    items.append(item, json)?;
                }
                json.push(']');
            }
            Form::Struct(fields) => {
                json.push('{');
                for (index, (key, field)) in fields.iter().enumerate() {
                    if index > 0 {
                        json.push(',');
                    }
                    json.push_str(key);
                    field.append(row, json)?;
                }
                json.push('}');
            }
            Form::Map(keys, values, map) => append_map(keys, values, map, row, json)?,
        }
        Ok(())
    }
}

impl<'a> Form<'a> {
    fn list(array: &'a ListArray) -> Result<Form<'a>, RenderError> {
        let offsets = array.value_offsets();
        let range = move |row: usize| offsets[row] as usize..offsets[row + 1] as usize;
        Ok(Form::List(Box::new(Encoder::of(array.values().as_ref())?), Box::new(range)))
    }

    fn large_list(array: &'a LargeListArray) -> Result<Form<'a>, RenderError> {
        let offsets = array.value_offsets();
        let range = move |row: usize| offsets[row] as usize..offsets[row + 1] as usize;
        Ok(Form::List(Box::new(Encoder::of(array.values().as_ref())?), Box::new(range)))
    }

    fn fixed_size_list(array: &'a FixedSizeListArray) -> Result<Form<'a>, RenderError> {
        let length = array.value_length() as usize;
        let range = move |row: usize| row * length..(row + 1) * length;
        Ok(Form::List(Box::new(Encoder::of(array.values().as_ref())?), Box::new(range)))
    }

    fn structure(array: &'a StructArray) -> Result<Form<'a>, RenderError> {
        let fields = array.fields().iter().zip(array.columns());
        let fields = fields
            .map(|(field, column): (_, &'a ArrayRef)| Ok((key_text(field.name()), Encoder::of(column.as_ref())?)));
        Ok(Form::Struct(fields.collect::<Result<_, RenderError>>()?))
    }

    fn map(array: &'a MapArray) -> Result<Form<'a>, RenderError> {
        let keys = Encoder::of(array.keys().as_ref())?;
        let values = Encoder::of(array.values().as_ref())?;
        Ok(Form::Map(Box::new(keys), Box::new(values), array))
    }
}

/// JSON object keys are strings: a key of another type becomes the string of its JSON text.
fn append_map(
    keys: &Encoder<'_>,
    values: &Encoder<'_>,
    map: &MapArray,
    row: usize,
    json: &mut String,
) -> Result<(), RenderError> {
    let offsets = map.value_offsets();
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    json.push('{');
    for entry in range.clone() {
        if entry > range.start {
            json.push(',');
        }
        let mut key = String::new();
        keys.append(entry, &mut key)?;
        if key.starts_with('"') {
            json.push_str(&key);
        } else {
            push_string(&key, json);
        }
        json.push(':');
        values.append(entry, json)?;
    }
    json.push('}');
    Ok(())
}

fn key_text(name: &str) -> String {
    let mut key = String::new();
    push_string(name, &mut key);
    key.push(':');
    key
}

fn push_string(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                write!(json, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::{render, sample, text};
    use arrow::array::{
        ArrayRef, BinaryArray, Float32Array, Float64Array, Int32Array, Int32Builder, ListArray, MapBuilder,
        RecordBatch, StringBuilder, StructArray,
    };
    use arrow::datatypes::{DataType, Field, Int32Type};
    use std::sync::Arc;

    #[test]
    fn a_result_is_one_array_with_exact_numbers() {
        assert_eq!(
            render(Format::Json, &[sample()]),
            "[\n\
             {\"id\":1,\"name\":\"Ada\",\"price\":123.45,\"paid\":true,\"day\":\"1970-01-01\",\"at\":\"1970-01-01T00:00:00\"},\n\
             {\"id\":20,\"name\":\"\",\"price\":-0.05,\"paid\":false,\"day\":\"2022-01-08\",\"at\":\"1970-01-01T00:00:01.500\"},\n\
             {\"id\":null,\"name\":null,\"price\":null,\"paid\":null,\"day\":null,\"at\":null}\n\
             ]\n"
        );
    }

    #[test]
    fn an_empty_result_is_an_empty_array() {
        assert_eq!(render(Format::Json, &[text("a", &[])]), "[]\n");
    }

    #[test]
    fn any_text_survives_a_json_reader() {
        let awkward = "quote \" back \\ line\nend\r tab\t bell\u{7} ж宽 \u{7f}";
        let output = render(Format::Json, &[text("k\"ey", &[awkward])]);
        let rows: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(rows[0]["k\"ey"], awkward);
    }

    #[test]
    fn floats_outside_json_are_strings() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, 1e21]));
        let singles: ArrayRef = Arc::new(Float32Array::from(vec![0.1, f32::INFINITY, -0.0]));
        let output = render(Format::Json, &[RecordBatch::try_from_iter([("d", doubles), ("s", singles)]).unwrap()]);
        let rows: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(rows[0]["d"], "NaN");
        assert_eq!(rows[1]["d"], "-Infinity");
        assert_eq!(rows[2]["d"], 1e21);
        assert!(output.contains("\"s\":0.1}"), "a single keeps its own short text: {output}");
        assert_eq!(rows[1]["s"], "Infinity");
    }

    #[test]
    fn nested_values_are_json_all_the_way_down() {
        let list: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]));
        let number: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
        let structure: ArrayRef =
            Arc::new(StructArray::from(vec![(Arc::new(Field::new("inner", DataType::Int32, false)), number)]));
        let mut map = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
        map.keys().append_value(5);
        map.values().append_value("five");
        map.append(true).unwrap();
        map.append(true).unwrap();
        let binary: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""]));
        let map: ArrayRef = Arc::new(map.finish());
        let columns = [("l", list), ("s", structure), ("m", map), ("b", binary)];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, a)| (n, a, true))).unwrap();
        assert_eq!(
            render(Format::Json, &[batch]),
            "[\n{\"l\":[1,null],\"s\":{\"inner\":7},\"m\":{\"5\":\"five\"},\"b\":\"00ff\"},\n\
             {\"l\":null,\"s\":{\"inner\":8},\"m\":{},\"b\":\"\"}\n]\n"
        );
    }
}
