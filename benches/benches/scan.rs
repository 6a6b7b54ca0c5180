//! Reading LINEITEM at scale 0.1: one number column, one string column, a selective filter, and every column.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustydb_benches::Bench;
use rustydb_tpch::tpch::{ScaleFactor, Table, TableGenerator};

fn scan(criterion: &mut Criterion) {
    let scale = ScaleFactor::new(0.1).expect("a valid scale");
    let bench = Bench::tpch(scale);
    let mut group = criterion.benchmark_group("lineitem, scale 0.1");
    group.throughput(Throughput::Elements(TableGenerator::new(Table::LineItem, scale).row_count()));
    for (name, sql) in [
        ("sum of a decimal", "SELECT sum(l_extendedprice) FROM lineitem"),
        ("longest string", "SELECT max(length(l_comment)) FROM lineitem"),
        ("one week of dates", "SELECT count(*) FROM lineitem WHERE l_shipdate BETWEEN '1995-03-01' AND '1995-03-07'"),
        ("all columns", "SELECT * FROM lineitem"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| bench.run(sql)));
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
