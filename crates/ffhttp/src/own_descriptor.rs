//! Copies of descriptors that another part of this process has open and does not show.
#![allow(unsafe_code, reason = "a number from /proc/self/fd becomes a descriptor, for one call of `dup`")]

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A copy of the descriptor `number` of this process, whatever that is; `None` when there is none.
pub(crate) fn copy(number: RawFd) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: The number is not -1. The borrow lasts for one call of `dup`, which closes nothing and changes nothing of what the
    // number stands for; when nothing is open there (any more), `dup` says so, and nothing is copied.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().ok()
}
