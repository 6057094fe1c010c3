//! What the subcommands of `floodtide` print and store.
//!
//! A test belongs here if it is about one subcommand and its output, and no other binary is about what that subcommand does.

mod bench;
mod doctor;
mod output;
mod probe;
mod trace;
