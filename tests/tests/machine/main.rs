//! Machines that restrict, fail or hang: limits, refused system calls, control groups, faulty
//! devices.
//!
//! A test belongs here if it needs a restricted process, a mounted file system, or measures a whole
//! process, such as its threads or its peak memory. The tests of this binary run as threads of one
//! process. A test that limits or measures its process therefore runs that part in a child process
//! (see `floodtide_tests::roles`).

mod cancellation;
mod field_reports;
mod limits;
mod real_faults;
mod system_limits;
