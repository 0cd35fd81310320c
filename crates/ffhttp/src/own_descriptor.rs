//! Copies of descriptors that another part of this process has open and does not show.
#![allow(
    unsafe_code,
    reason = "a number from /proc/self/fd becomes a descriptor, for as long as it is looked at"
)]

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A copy of the descriptor `number` of this process, when it `is` the one that is looked for; `None` otherwise.
///
/// Nothing else is ever copied: a copy would have to be closed again, and with any descriptor of a file that is closed a process
/// loses its locks on the file, those of SQLite on its databases, too.
pub(crate) fn copy_if(number: RawFd, is: impl FnOnce(BorrowedFd<'_>) -> bool) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: The number is not -1. Until `is` says yes the descriptor is only asked for what it is, which is harmless for any
    // number, also for one that somebody closes or opens meanwhile. After that it is one that its owner keeps open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if is(borrowed) { borrowed.try_clone_to_owned().ok() } else { None }
}
