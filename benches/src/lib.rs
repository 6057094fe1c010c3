//! Benches of floodtide: Criterion's in `benches/`; the loads that `cargo xtask bench load` times in `src/bin/ways` and `peers/`.
