//! Which of several memory nodes is the caller's own: the tensors are for it, wherever the workers run.

use std::fs;

/// The node of the processor that the calling thread is on; `None` where there is only one, or the system does not tell.
pub fn node_of_caller() -> Option<u32> {
    let online = fs::read_to_string("/sys/devices/system/node/online").ok()?;
    if has_several(&online) { current() } else { None }
}

/// Whether a list such as `0`, `0-3` or `0,2` names more than one.
fn has_several(list: &str) -> bool {
    list.trim().contains(['-', ','])
}

fn current() -> Option<u32> {
    let (mut cpu, mut node) = (0_u32, 0_u32);
    // SAFETY: the kernel writes to the two numbers, which live through the call, and takes nothing else.
    let done = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, 0) };
    (done == 0).then_some(node)
}

// Miri knows neither call.
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
        let node = current().expect("the system tells");
        let region = Region::map(1 << 20, Alignment::ONE).expect("maps");
        match region.prefer_node(node) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return println!("skipped: {error}"),
            done => done.expect("a node that is there"),
        }
        // As the kernel tells it of an address (`MPOL_F_ADDR` of `linux/mempolicy.h`).
        const OF_ADDRESS: i32 = 2;
        let (mut mode, mut mask) = (0_i32, [0_u64; 17]);
        let bits = 64 * 16_u64;
        let start = region.start().as_ptr();
        // SAFETY: the kernel writes the mode and at most so many bits of the mask.
        let asked = unsafe {
            libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, mask.as_mut_ptr(), bits, start, OF_ADDRESS)
        };
        assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        assert_eq!((mode, mask[node as usize / 64]), (libc::MPOL_PREFERRED, 1 << (node % 64)));
        assert!(region.prefer_node(1023).is_err(), "there is no such node");
        assert!(region.prefer_node(1024).is_err(), "there cannot be such a node");
    }
}
