//! Criterion benches of floodtide: see `benches/`.
