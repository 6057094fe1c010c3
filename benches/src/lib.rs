//! Benchmarks of floodtide: those of Criterion are in `benches/`, and the loads that `cargo xtask
//! bench load` times are in `src/bin/subjects` and `baselines/`.
