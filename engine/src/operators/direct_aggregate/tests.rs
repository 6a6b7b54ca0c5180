//! Against DataFusion's own operator, on random rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::{average::avg_udaf, count::count_udaf, min_max::max_udaf, sum::sum_udaf};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::{ColumnDomain, DirectAggregateExec, KeyDomain};

/// A small generator of our own (xorshift64*), so that a failing seed fails everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self, below: i64) -> i64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 1) as i64 % below
    }

    /// NULL one time in ten.
    fn maybe(&mut self, below: i64) -> Option<i64> {
        (self.next(10) > 0).then(|| self.next(below))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("day", DataType::Date32, true),
        Field::new("flag", DataType::Utf8, true),
        Field::new("year", DataType::Int32, true),
        Field::new("price", DataType::Decimal128(15, 2), true),
    ]))
}

fn batch(random: &mut Random, rows: usize) -> RecordBatch {
    const FLAGS: [&str; 7] = ["", "A", "R", "N", "a longer text than a word", "a longer text than b", "é"];
    let mut column = |below: i64| (0..rows).map(|_| random.maybe(below)).collect::<Vec<_>>();
    let keys: ArrayRef = Arc::new(Int64Array::from(column(5_000)));
    let days: ArrayRef =
        Arc::new(Date32Array::from_iter(column(40).into_iter().map(|day| day.map(|day| 8_000 + day as i32))));
    let flags: ArrayRef =
        Arc::new(StringArray::from_iter(column(7).into_iter().map(|flag| flag.map(|flag| FLAGS[flag as usize]))));
    let years: ArrayRef =
        Arc::new(Int32Array::from_iter(column(9).into_iter().map(|year| year.map(|year| year as i32 - 4))));
    let prices = Decimal128Array::from_iter(column(1_000_000).into_iter().map(|price| price.map(i128::from)));
    let prices: ArrayRef = Arc::new(prices.with_precision_and_scale(15, 2).unwrap());
    RecordBatch::try_new(schema(), vec![keys, days, flags, years, prices]).unwrap()
}

fn input(random: &mut Random, partitions: usize) -> Arc<dyn ExecutionPlan> {
    let partitions: Vec<Vec<RecordBatch>> =
        (0..partitions).map(|part| (0..part + 1).map(|_| batch(random, 700)).collect()).collect();
    MemorySourceConfig::try_new_exec(&partitions, schema(), None).unwrap()
}

fn partial(input: &Arc<dyn ExecutionPlan>, by: &[&str], mode: AggregateMode) -> AggregateExec {
    let schema = schema();
    let groups = by.iter().map(|name| (col(name, &schema).unwrap(), (*name).to_owned())).collect();
    let price = || col("price", &schema).unwrap();
    let aggregate = |function, arguments: Vec<Arc<dyn PhysicalExpr>>, name: &str| {
        let built = AggregateExprBuilder::new(function, arguments).schema(Arc::clone(&schema)).alias(name).build();
        Arc::new(built.unwrap())
    };
    let aggregates = vec![
        aggregate(sum_udaf(), vec![price()], "total"),
        aggregate(avg_udaf(), vec![price()], "mean"),
        aggregate(count_udaf(), vec![lit(1i64)], "rows"),
        aggregate(max_udaf(), vec![col("flag", &schema).unwrap()], "last"),
        aggregate(sum_udaf(), vec![price()], "cheap"),
    ];
    let cheap = binary(col("key", &schema).unwrap(), Operator::Lt, lit(1_000i64), &schema).unwrap();
    let filters = vec![None, None, None, None, Some(cheap)];
    let groups = PhysicalGroupBy::new_single(groups);
    AggregateExec::try_new(mode, groups, aggregates, filters, Arc::clone(input), schema.clone()).unwrap()
}

/// All rows in an order of their own.
async fn sorted(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Vec<Vec<u8>> {
    let schema = plan.schema();
    let batch = concat_batches(&schema, &collect(plan, context).await.unwrap()).unwrap();
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).unwrap();
    let mut rows: Vec<Vec<u8>> =
        converter.convert_columns(batch.columns()).unwrap().iter().map(|row| row.as_ref().to_vec()).collect();
    rows.sort();
    rows
}

async fn assert_same(random: &mut Random, by: &[&str], domain: KeyDomain, context: Arc<TaskContext>) {
    for partitions in [1, 3] {
        assert_same_input(input(random, partitions), by, domain.clone(), Arc::clone(&context)).await;
    }
}

async fn assert_same_input(input: Arc<dyn ExecutionPlan>, by: &[&str], domain: KeyDomain, context: Arc<TaskContext>) {
    let first = partial(&input, by, AggregateMode::Partial);
    let direct = Arc::new(DirectAggregateExec::try_new(&first, Arc::clone(&input), domain.clone()).unwrap());
    let whole = Arc::new(datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec::new(input));
    let expected = partial(&(whole as _), by, AggregateMode::Single);
    assert_eq!(direct.schema(), expected.schema());
    let expected = sorted(Arc::new(expected), Arc::default()).await;
    assert_eq!(sorted(direct, context).await, expected, "{by:?} {domain:?}");
}

#[tokio::test]
async fn integers_are_numbered_within_and_beyond_the_expected_range() {
    let mut random = Random(11);
    for (low, span) in [(0, 5_000), (100, 300), (-9, 1), (1 << 40, 10)] {
        let domain = KeyDomain::Integers { low, span, groups: 10 };
        assert_same(&mut random, &["key"], domain, Arc::default()).await;
    }
    assert_same(&mut random, &["day"], KeyDomain::Integers { low: 8_010, span: 90, groups: 40 }, Arc::default()).await;
    assert_same(&mut random, &["year"], KeyDomain::Integers { low: -4, span: 9, groups: 9 }, Arc::default()).await;
}

/// Partitions of rows whose keys come in order, in parts of the range that overlap at their ends, with some rows from
/// anywhere, NULLs among them, in between.
fn ordered(random: &mut Random, partitions: usize, strays: i64) -> Vec<Vec<RecordBatch>> {
    let part = |random: &mut Random, part: usize| {
        let mut next = part as i64 * 300_000;
        let mut batches = Vec::new();
        for _ in 0..40 {
            let rows = batch(random, 700);
            let keys: Int64Array = (0..700)
                .map(|_| {
                    next += random.next(25);
                    Some(next)
                })
                .collect();
            let mut columns = rows.columns().to_vec();
            columns[0] = Arc::new(keys);
            batches.push(RecordBatch::try_new(schema(), columns).unwrap());
            if random.next(10) < strays {
                let rows = batch(random, 300);
                let keys: Int64Array = (0..300).map(|_| random.maybe(1_500_000)).collect();
                let mut columns = rows.columns().to_vec();
                columns[0] = Arc::new(keys);
                batches.push(RecordBatch::try_new(schema(), columns).unwrap());
            }
        }
        batches
    };
    (0..partitions).map(|number| part(random, number)).collect()
}

#[tokio::test]
async fn groups_of_ordered_keys_are_whole_wherever_their_rows_come_from() {
    let mut random = Random(14);
    for strays in [0, 2, 10] {
        for (low, span) in [(0, 1_500_000), (-100, 2_000_000), (50_000, 1_200_000)] {
            let rows = ordered(&mut random, 4, strays);
            let input: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&rows, schema(), None).unwrap();
            let domain = KeyDomain::Integers { low, span, groups: 50_000 };
            assert_same_input(input, &["key"], domain, Arc::default()).await;
        }
    }
}

#[tokio::test]
async fn columns_of_few_values_are_coded_even_if_there_are_more_than_expected() {
    let mut random = Random(12);
    for codes in [1, 2, 4, 20] {
        let domains = |count: usize| KeyDomain::Small(vec![ColumnDomain { codes }; count]);
        assert_same(&mut random, &["flag"], domains(1), Arc::default()).await;
        assert_same(&mut random, &["flag", "year"], domains(2), Arc::default()).await;
        assert_same(&mut random, &["year", "day", "flag"], domains(3), Arc::default()).await;
    }
}

#[tokio::test]
async fn without_memory_for_the_slots_datafusions_operator_takes_over() {
    let mut random = Random(13);
    let pool = Arc::new(GreedyMemoryPool::new(8 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
    let context = Arc::new(TaskContext::default().with_runtime(runtime));
    let domain = KeyDomain::Integers { low: 0, span: 1 << 26, groups: 5_000 };
    assert_same(&mut random, &["key"], domain, context).await;
}

#[tokio::test]
async fn no_rows_make_no_groups() {
    let empty = MemorySourceConfig::try_new_exec(&[vec![]], schema(), None).unwrap();
    let empty: Arc<dyn ExecutionPlan> = empty;
    for (by, domain) in [
        ("key", KeyDomain::Integers { low: 0, span: 10, groups: 10 }),
        ("flag", KeyDomain::Small(vec![ColumnDomain { codes: 4 }])),
    ] {
        let first = partial(&empty, &[by], AggregateMode::Partial);
        let direct = DirectAggregateExec::try_new(&first, Arc::clone(&empty), domain).unwrap();
        assert!(sorted(Arc::new(direct), Arc::default()).await.is_empty());
    }
}
