//! Loads and streams return the right bytes, in order and within their memory limit, with every
//! backend.
//!
//! A test belongs here if it calls the library on its own files, and tests neither a format nor the
//! machine.

mod adaptive;
mod backends_agree;
mod injected;
mod lifecycle;
mod simulated;
mod slices;
mod stream_memory;
mod streams;
