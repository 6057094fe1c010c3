//! Compares floodtide's pool with other pools and with plain allocations: `cargo xtask bench pool`
//! runs it and stores the results.
//!
//! Every result is the time of one *get and drop* on one thread, while N threads run. Pools without
//! a buffer size reserve it in each buffer.

mod baselines;

use baselines::*;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const SIZES: [(&str, usize); 5] =
    [("1 KiB", 1 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20), ("256 MiB", 256 << 20)];

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(format!("pool {name}"));
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(20);
    group
}

#[inline(always)]
fn cycle<C: Baseline>(pool: &C, bytes: usize, touch: bool) {
    let mut buffer = pool.get(black_box(bytes));
    if touch {
        C::touch(&mut buffer, bytes);
    }
    // The address, not the buffer: moving the buffer through memory would cost its size and measure
    // nothing.
    black_box(C::address(&mut buffer));
    pool.give(buffer);
}

/// Measures get and drop on one thread.
fn alone<C: Baseline>(group: &mut BenchmarkGroup<'_, WallTime>, touch: bool) {
    for (size, bytes) in SIZES {
        let pool = C::default();
        group.bench_function(BenchmarkId::new(C::NAME, size), |bencher| {
            bencher.iter(|| cycle(&pool, bytes, touch));
        });
    }
}

/// Measures get and drop on several threads at once; the time is that of the slowest.
fn threads<C: Baseline + Sync>(group: &mut BenchmarkGroup<'_, WallTime>, count: usize) {
    for (size, bytes) in SIZES {
        let pool = C::default();
        group.bench_function(BenchmarkId::new(C::NAME, size), |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Barrier::new(count + 1);
                std::thread::scope(|scope| {
                    let threads: Vec<_> = (0..count)
                        .map(|_| {
                            scope.spawn(|| {
                                cycle(&pool, bytes, false);
                                start.wait();
                                let begin = Instant::now();
                                (0..iterations).for_each(|_| cycle(&pool, bytes, false));
                                begin.elapsed()
                            })
                        })
                        .collect();
                    start.wait();
                    let times = threads.into_iter().map(|thread| thread.join().expect("no panic"));
                    times.max().unwrap_or_default()
                })
            });
        });
    }
}

/// Measures one of a thousand buffers, all taken and then dropped.
fn held<C: Baseline>(group: &mut BenchmarkGroup<'_, WallTime>) {
    for (size, bytes) in &SIZES[..2] {
        let pool = C::default();
        let mut buffers = Vec::with_capacity(1000);
        group.bench_function(BenchmarkId::new(C::NAME, size), |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = iterations.div_ceil(1000);
                let begin = Instant::now();
                for _ in 0..rounds {
                    buffers.extend((0..1000).map(|_| pool.get(*bytes)));
                    buffers.drain(..).for_each(|buffer| pool.give(buffer));
                }
                begin.elapsed().mul_f64(iterations as f64 / (rounds * 1000) as f64)
            });
        });
    }
}

/// Measures one get and drop of two pools in turn on one thread.
fn alternating<C: Baseline>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (size, bytes) = SIZES[1];
    let pools = [C::default(), C::default()];
    group.bench_function(BenchmarkId::new(C::NAME, size), |bencher| {
        let mut turn = 0;
        bencher.iter(|| {
            turn ^= 1;
            cycle(&pools[turn], bytes, false);
        });
    });
}

/// Measures a thread that starts, gets and drops ten buffers, and ends.
fn short_lived<C: Baseline + Sync>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (size, bytes) = SIZES[1];
    let pool = C::default();
    group.bench_function(BenchmarkId::new(C::NAME, size), |bencher| bencher.iter(|| short_life(&pool, bytes)));
}

fn short_life<C: Baseline + Sync>(pool: &C, bytes: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| (0..10).for_each(|_| cycle(pool, bytes, true)));
    });
}

fn alone_bench(criterion: &mut Criterion, name: &str, touch: bool) {
    let group = &mut group(criterion, name);
    alone::<Floodtide>(group, touch);
    alone::<ZeropoolAlloc>(group, touch);
    alone::<ZeropoolUninit>(group, touch);
    alone::<Lifeguard>(group, touch);
    alone::<ObjectPool>(group, touch);
    alone::<Opool>(group, touch);
    alone::<ShardedSlab>(group, touch);
    alone::<BytesMut>(group, touch);
    alone::<VecAlloc>(group, touch);
}

fn get_and_drop(criterion: &mut Criterion) {
    alone_bench(criterion, "get and drop", false);
}

fn touch_each_page(criterion: &mut Criterion) {
    alone_bench(criterion, "get, write a byte per page, drop", true);
}

fn several_threads(criterion: &mut Criterion) {
    for (name, count) in [("two threads", 2), ("four threads", 4)] {
        let group = &mut group(criterion, name);
        threads::<Floodtide>(group, count);
        threads::<ZeropoolAlloc>(group, count);
        threads::<ZeropoolUninit>(group, count);
        threads::<ObjectPool>(group, count);
        threads::<Opool>(group, count);
        threads::<ShardedSlab>(group, count);
        threads::<BytesMut>(group, count);
        threads::<VecAlloc>(group, count);
    }
}

fn thousand_held(criterion: &mut Criterion) {
    let group = &mut group(criterion, "a thousand held");
    held::<Floodtide>(group);
    held::<ZeropoolAlloc>(group);
    held::<ZeropoolUninit>(group);
    held::<Lifeguard>(group);
    held::<ObjectPool>(group);
    held::<Opool>(group);
    held::<ShardedSlab>(group);
    held::<BytesMut>(group);
    held::<VecAlloc>(group);
}

fn two_pools(criterion: &mut Criterion) {
    let group = &mut group(criterion, "two pools in turn");
    alternating::<Floodtide>(group);
    alternating::<ZeropoolAlloc>(group);
    alternating::<ZeropoolUninit>(group);
    alternating::<Lifeguard>(group);
    alternating::<ObjectPool>(group);
    alternating::<Opool>(group);
    alternating::<ShardedSlab>(group);
}

fn short_lived_threads(criterion: &mut Criterion) {
    let group = &mut group(criterion, "short-lived threads");
    short_lived::<Floodtide>(group);
    short_lived::<ZeropoolAlloc>(group);
    short_lived::<ZeropoolUninit>(group);
    short_lived::<ObjectPool>(group);
    short_lived::<Opool>(group);
    short_lived::<ShardedSlab>(group);
    short_lived::<VecAlloc>(group);
}

/// Prints the share of borrows served without an allocation, as a line that xtask reads. The first
/// borrow of each pool must allocate and does not count.
fn hit_rates(_: &mut Criterion) {
    fn report<C: Baseline>(case: &str, pools: &[C], borrows: u64) {
        let rates: Option<Vec<f64>> = pools.iter().map(C::hit_rate).collect();
        if let Some(rates) = rates {
            let hits: f64 = rates.iter().map(|rate| rate * borrows as f64).sum();
            let rate = hits / ((borrows - 1) * pools.len() as u64) as f64;
            println!("hit rate | {case} | {} | {:.1} %", C::NAME, 100.0 * rate);
        }
    }
    fn alternate<C: Baseline>(pools: &[C; 2]) {
        (0..1000).for_each(|_| pools.iter().for_each(|pool| cycle(pool, 64 << 10, false)));
        report("two pools in turn", pools, 1000);
    }
    fn spawn<C: Baseline + Sync>(pool: &C) {
        (0..100).for_each(|_| short_life(pool, 64 << 10));
        report("short-lived threads", std::slice::from_ref(pool), 1000);
    }
    alternate(&[Floodtide::default(), Floodtide::default()]);
    alternate(&[ZeropoolUninit::counting(), ZeropoolUninit::counting()]);
    spawn(&Floodtide::default());
    spawn(&ZeropoolUninit::counting());
}

criterion_group!(
    benches,
    get_and_drop,
    touch_each_page,
    several_threads,
    thousand_held,
    two_pools,
    short_lived_threads,
    hit_rates
);
criterion_main!(benches);
