//! The allocator of nodes' programs: mimalloc, asked in the way that is short.
//!
//! The `mimalloc` crate asks for aligned memory with every request. Version 3 of mimalloc has a short cut for that only while
//! the first page of a size has a free block at hand. What misses it takes a block of a larger size, unless the size is a power
//! of two, and the page stays as it is: so a size that is asked for only in this way misses the short cut for ever, and each box
//! of 200 bytes costs four times what it should. Plain requests have no such trap, and what they give is aligned to a word.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

/// The allocator of a node's program.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;
///
/// assert_eq!(vec![7; 1000].len(), 1000);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// Plain requests are for what needs no more than this: mimalloc's blocks are multiples of a word.
const PLAIN_ALIGN_MAX: usize = align_of::<usize>();

// SAFETY: mimalloc's functions do what the trait asks for: memory of that size, aligned to a word or as asked, that belongs to
// the caller until it is freed, and null when there is none. A block is freed and grown in one way, however it was asked for.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two are legal.
        unsafe {
            match layout.align() <= PLAIN_ALIGN_MAX {
                true => libmimalloc_sys::mi_malloc(layout.size()).cast(),
                false => libmimalloc_sys::mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two are legal.
        unsafe {
            match layout.align() <= PLAIN_ALIGN_MAX {
                true => libmimalloc_sys::mi_zalloc(layout.size()).cast(),
                false => libmimalloc_sys::mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller gives back what this allocator gave.
        unsafe { libmimalloc_sys::mi_free(block.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller gives back what this allocator gave; what is word-aligned is grown by a plain request there.
        unsafe { libmimalloc_sys::mi_realloc_aligned(block.cast::<c_void>(), size, layout.align()).cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn blocks_of_every_size_and_alignment_are_aligned_their_own_and_keep_their_bytes_when_they_grow() {
        let sizes = (1..=1100).chain([4096, 65_536, 1 << 20]);
        let mut held = Vec::new();
        for size in sizes {
            for align in [1, 2, 4, 8, 16, 64, 128, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                held.push(block(layout, size as u8));
            }
        }
        for (mut block, layout) in held {
            let first = layout.size() as u8;
            assert!(block.iter().all(|byte| *byte == first), "{layout:?}");
            block.resize(layout.size() * 3, !first);
            assert!(block[..layout.size()].iter().all(|byte| *byte == first), "{layout:?}");
        }
    }

    /// Bytes in a block of that layout's size, after one of the layout itself was seen to be right.
    #[allow(unsafe_code)]
    fn block(layout: Layout, fill: u8) -> (Vec<u8>, Layout) {
        // SAFETY: the block is written within its size, and freed with its own layout.
        unsafe {
            let (plain, zeroed) = (ALLOCATOR.alloc(layout), ALLOCATOR.alloc_zeroed(layout));
            assert!(!plain.is_null() && !zeroed.is_null() && plain != zeroed);
            assert!(
                (plain as usize).is_multiple_of(layout.align())
                    && (zeroed as usize).is_multiple_of(layout.align()),
                "{layout:?}"
            );
            plain.write_bytes(fill, layout.size());
            assert!((0..layout.size()).all(|at| *zeroed.add(at) == 0), "{layout:?}");
            let grown = ALLOCATOR.realloc(plain, layout, layout.size() * 2);
            assert!(
                (grown as usize).is_multiple_of(layout.align())
                    && (0..layout.size()).all(|at| *grown.add(at) == fill)
            );
            let grown_layout = Layout::from_size_align_unchecked(layout.size() * 2, layout.align());
            ALLOCATOR.dealloc(grown, grown_layout);
            ALLOCATOR.dealloc(zeroed, layout);
        }
        (vec![fill; layout.size()], layout)
    }
}
