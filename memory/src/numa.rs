//! Finds the memory node of the caller, which uses the tensors wherever the workers run.

use std::fs;

/// Returns the node of the calling thread's processor, or `None` if there is only one or it is
/// unknown.
pub fn node_of_caller() -> Option<u32> {
    let online = fs::read_to_string("/sys/devices/system/node/online").ok()?;
    if has_several(&online) { current() } else { None }
}

/// Returns true if a list such as `0`, `0-3` or `0,2` has more than one node.
fn has_several(list: &str) -> bool {
    list.trim().contains(['-', ','])
}

fn current() -> Option<u32> {
    let (mut cpu, mut node) = (0_u32, 0_u32);
    // SAFETY: the kernel writes only to the two numbers, which outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, 0) };
    (done == 0).then_some(node)
}

// Miri supports neither call.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::region::Region;
    use crate::stable::StableMemory;
    use floodtide_core::Alignment;

    #[test]
    fn one_node_is_not_several() {
        assert_eq!(
            ["0\n", "0-1\n", "0,2", "0-1,4-5", "12", ""].map(has_several),
            [false, true, true, true, false, false]
        );
    }

    #[test]
    fn memory_is_of_the_node_that_was_asked_for() {
        let node = current().expect("the system reports the node");
        let region = Region::map(1 << 20, Alignment::ONE).expect("maps");
        match region.prefer_node(node) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return println!("skipped: {error}"),
            done => done.expect("a node that is there"),
        }
        // The node of an address as the kernel reports it (`MPOL_F_ADDR` of `linux/mempolicy.h`).
        const OF_ADDRESS: i32 = 2;
        let (mut mode, mut mask) = (0_i32, [0_u64; 17]);
        let bits = 64 * 16_u64;
        let start = region.start().as_ptr();
        // SAFETY: the kernel writes the mode and at most this many bits of the mask.
        let asked = unsafe {
            libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, mask.as_mut_ptr(), bits, start, OF_ADDRESS)
        };
        assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        assert_eq!((mode, mask[node as usize / 64]), (libc::MPOL_PREFERRED, 1 << (node % 64)));
        assert!(region.prefer_node(1023).is_err(), "there is no such node");
        assert!(region.prefer_node(1024).is_err(), "there cannot be such a node");
    }
}
