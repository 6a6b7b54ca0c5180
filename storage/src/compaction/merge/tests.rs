//! Merges of inputs of which some columns are in memory and others are not.

use arrow::array::{Int64Array, RecordBatch, StringViewArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::catalog::{IndexId, NewTable, TableId};
use crate::column_cache::{ColumnCache, ColumnSource};
use crate::deletes::DeleteSet;
use crate::files::{FileObjects, MemoryFiles};
use crate::segment::encode_segment;

/// A quarter of all rows, which is what the first and the second input have. The third has two quarters: more than a block.
const QUARTER: usize = BLOCK_ROWS / 2 + 50;

/// The names tell of which inputs the columns are in memory.
const COLUMNS: [&str; 7] = ["id", "all", "most", "half", "few", "held", "none"];

const HELD: usize = 5;

/// The inputs, and what a merge has to make of them.
struct Inputs {
    table: Arc<TableDef>,
    source: Arc<ColumnSource>,
    segments: Vec<Arc<Segment>>,
    dead: Vec<RoaringBitmap>,
    ids: Vec<Vec<i64>>,
    live_ids: Vec<i64>,
    live: RecordBatch,
    /// A reader has it, and the cache does not.
    _held: Arc<Column>,
}

fn table() -> Arc<TableDef> {
    let data_type = |name: &str| match name {
        "id" | "half" | "held" => DataType::Int64,
        _ => DataType::Utf8View,
    };
    let field = |name: &str| Field::new(name, data_type(name), ["most", "half", "none"].contains(&name));
    let schema = Arc::new(Schema::new(COLUMNS.into_iter().map(field).collect::<Vec<_>>()));
    let (schema_name, name) = ("public".to_owned(), "t".to_owned());
    let new = NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
    Arc::new(TableDef::new(TableId(1), IndexId(2), new).unwrap())
}

/// Rows whose values follow from their ids. Strings of some columns repeat.
fn rows_of(table: &TableDef, ids: &[i64]) -> RecordBatch {
    let numbers = |value: fn(i64) -> Option<i64>| -> ArrayRef {
        Arc::new(ids.iter().map(|id| value(*id)).collect::<Int64Array>())
    };
    let texts = |value: fn(i64) -> Option<String>| -> ArrayRef {
        Arc::new(ids.iter().map(|id| value(*id)).collect::<StringViewArray>())
    };
    let columns = vec![
        numbers(Some),
        texts(|id| Some(format!("{id} is in all of them"))),
        texts(|id| (id % 7 != 3).then(|| format!("colour {}", id % 13))),
        numbers(|id| (id % 5 != 1).then_some(1000 - id)),
        texts(|id| Some(format!("few have {}", id * 7919))),
        numbers(|id| Some(id * id)),
        texts(|id| (id % 3 != 0).then(|| format!("taste {}", id % 101))),
    ];
    RecordBatch::try_new(Arc::clone(table.storage_schema()), columns).unwrap()
}

async fn stored(source: &Arc<ColumnSource>, table: &Arc<TableDef>, encoded: EncodedSegment) -> Arc<Segment> {
    let EncodedSegment { meta, file } = encoded;
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    source.objects.put_opts(&Path::from(meta.path()), file.into(), create).await.unwrap();
    Arc::new(Segment::new(Arc::clone(source), Arc::clone(table), meta, DeleteSet::default(), 0))
}

/// Three segments whose keys are mixed, with rows that are dead: the first ones, a stretch of them, and some everywhere.
async fn inputs() -> Inputs {
    let objects = Arc::new(FileObjects::new(Arc::new(MemoryFiles::new())));
    let source = Arc::new(ColumnSource::new(objects, ColumnCache::new(1 << 30), unbounded_channel().0));
    let table = table();
    let all_ids = || 0..4 * QUARTER as i64;
    let input_of = |id: i64| [0_u64, 1, 2, 2][id as usize % 4];
    let is_dead = |id: i64| id < 50 || id % 9 == 4 || (3000..9000).contains(&id);
    let (mut segments, mut dead, mut ids_of) = (Vec::new(), Vec::new(), Vec::new());
    for input in 0..3 {
        let ids: Vec<i64> = all_ids().filter(|id| input_of(*id) == input).collect();
        let rows = rows_of(&table, &ids);
        let keys = table.codec().unwrap().keys.encode(&rows.columns()[..1]).unwrap();
        let encoded = encode_segment(&table, input + 1, &[rows], &keys).unwrap();
        let segment = stored(&source, &table, encoded).await;
        segment.complete(ids.iter().map(|id| *id as Timestamp).collect());
        let dead_rows = (0_u32..).zip(&ids).filter(|(_, id)| is_dead(**id)).map(|(row, _)| row);
        dead.push(dead_rows.collect::<RoaringBitmap>());
        segments.push(segment);
        ids_of.push(ids);
    }
    let held = segments[2].column(HELD).await.unwrap();
    source.cache.remove_segment(segments[2].meta.id);
    for (input, column) in [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2), (2, 3), (0, 4), (0, HELD)] {
        segments[input].column(column).await.unwrap();
    }
    assert!(segments[2].has_column(HELD) && segments[2].kept_column(HELD).is_none());
    let live_ids: Vec<i64> = all_ids().filter(|id| !is_dead(*id)).collect();
    let live = rows_of(&table, &live_ids);
    Inputs { table, source, segments, dead, ids: ids_of, live_ids, live, _held: held }
}

/// Merges them all, and compares what it makes with what it should: the columns that are in memory as well.
async fn merged(
    inputs: &Inputs,
    keep: impl FnMut(usize, usize) -> bool,
    pause: impl AsyncFnMut(u64) -> Result<()>,
) -> Output {
    let mut outputs = Vec::new();
    let merged = merge(
        &inputs.table,
        &inputs.segments,
        &inputs.dead,
        || 100,
        keep,
        pause,
        async |output| {
            outputs.push(output);
            Ok(())
        },
    );
    let merged = merged.await.unwrap();
    for (input, ids) in inputs.ids.iter().enumerate() {
        for (row, id) in (0_u32..).zip(ids) {
            let place = inputs.live_ids.binary_search(id).ok().map(|row| (0, row as u32));
            assert_eq!(merged.new_place(input, row), place, "row {row} of input {input}");
        }
    }
    assert_eq!(outputs.len(), 1);
    let output = outputs.remove(0);
    assert_eq!(output.keys.len(), inputs.live_ids.len());
    assert!(output.written.iter().copied().eq(inputs.live_ids.iter().map(|id| *id as Timestamp)));
    for (index, column) in output.columns.iter().enumerate() {
        if let Some(column) = column {
            assert_values(inputs, index, &[column.to_array().unwrap()]);
        }
    }
    output
}

/// Fails unless these are a column's values in all live rows.
fn assert_values(inputs: &Inputs, column: usize, blocks: &[ArrayRef]) {
    let blocks: Vec<&dyn Array> = blocks.iter().map(|block| block.as_ref()).collect();
    let values = concat(&blocks).unwrap();
    assert!(&values == inputs.live.column(column), "values of \"{}\": {values:?}", COLUMNS[column]);
}

/// The columns that are ready to be kept in memory.
fn kept(output: &Output) -> Vec<&'static str> {
    COLUMNS.into_iter().zip(&output.columns).filter(|(_, column)| column.is_some()).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn columns_that_are_in_memory_of_most_rows_stay_there_and_no_others() {
    let inputs = inputs().await;
    let output = merged(&inputs, |_, _| true, async |_| Ok(())).await;
    // The key's are read for the order of the rows, and so are in memory.
    assert_eq!(kept(&output), ["id", "all", "most"]);
    let segment = stored(&inputs.source, &inputs.table, output.encoded).await;
    for column in 0..COLUMNS.len() {
        assert_values(&inputs, column, &segment.read_rows(column, 0..inputs.live_ids.len()).await.unwrap());
    }
}

#[tokio::test]
async fn a_merge_makes_the_same_file_wherever_room_ends() {
    let inputs = inputs().await;
    let all = merged(&inputs, |_, _| true, async |_| Ok(())).await;
    for room in 0_usize.. {
        let mut asked = 0;
        let keep = |_: usize, _: usize| {
            asked += 1;
            asked <= room
        };
        let output = merged(&inputs, keep, async |_| Ok(())).await;
        assert!(output.encoded.file == all.encoded.file, "with room for {room}");
        assert!(kept(&output).len() <= room, "{:?} with room for {room}", kept(&output));
        if asked <= room {
            assert_eq!(kept(&output), kept(&all));
            break;
        }
    }
}

#[tokio::test]
async fn what_is_counted_for_columns_is_what_those_take_that_are_kept() {
    let inputs = inputs().await;
    // There is room for what each is expected to take, and the second time for what it takes indeed, or for nothing.
    for (room, names) in [(usize::MAX, vec!["id", "all", "most"]), (0, vec![])] {
        let (mut counted, mut granted) = (0, 0);
        let keep = |before: usize, bytes: usize| {
            let has_room = before == 0 || bytes <= room;
            granted += usize::from(before == 0);
            counted = counted - before + if has_room { bytes } else { 0 };
            has_room
        };
        let output = merged(&inputs, keep, async |_| Ok(())).await;
        assert_eq!((granted, kept(&output)), (3, names));
        assert_eq!(counted, output.columns.iter().flatten().map(Column::memory_bytes).sum::<usize>());
    }
}

#[tokio::test]
async fn what_is_let_go_of_while_it_is_merged_is_read_and_no_longer_kept() {
    let inputs = inputs().await;
    let all = merged(&inputs, |_, _| true, async |_| Ok(())).await;
    let output = merged(
        &inputs,
        |_, _| true,
        async |_| {
            inputs.source.cache.remove_segment(inputs.segments[2].meta.id);
            Ok(())
        },
    );
    let output = output.await;
    assert!(output.encoded.file == all.encoded.file);
    assert_eq!(kept(&output), ["id"], "of the rest, half of the rows are left in memory, or fewer");
}
