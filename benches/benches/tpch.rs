//! TPC-H at scale 0.1, all 22 queries one after the other: the figure that moves when anything analytical does. Each
//! answer is checked once before the clock starts.

use criterion::{Criterion, criterion_group, criterion_main};
use rustydb_benches::Bench;
use rustydb_tpch::tpch::{QUERIES, ScaleFactor, run_query};

fn total(criterion: &mut Criterion) {
    let scale = ScaleFactor::new(0.1).expect("a valid scale");
    let bench = Bench::tpch(scale);
    for query in &QUERIES {
        let report = bench.runtime.block_on(run_query(&bench.session, query, scale, 1)).expect("a readable reference");
        assert_eq!(report.verified, Some(true), "q{}: {}", query.number, report.failure.unwrap_or_default());
    }
    let texts = QUERIES.map(|query| query.sql(scale));
    let mut group = criterion.benchmark_group("tpch, scale 0.1");
    group.sample_size(10);
    group.bench_function("total of 22", |bencher| {
        bencher.iter(|| texts.iter().map(|sql| bench.run(sql)).sum::<u64>());
    });
    group.finish();
}

criterion_group!(benches, total);
criterion_main!(benches);
