//! The output of the subcommands of `floodtide`, and what they store.
//!
//! A test belongs here if it is about one subcommand and its output, and no other binary covers
//! that subcommand.

#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small, or only fill bytes")]

mod bench;
mod doctor;
mod output;
mod probe;
mod trace;
