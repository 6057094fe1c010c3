//! What loads and streams bring: the right bytes, in order and within their memory, by every backend.
//!
//! A test belongs here if it calls the library on files of its own, and if neither the format nor the machine is what it tests.

mod adaptive;
mod backends_agree;
mod injected;
mod lifecycle;
mod simulated;
mod slices;
mod stream_memory;
mod streams;
