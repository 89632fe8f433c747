//! An allocator that counts, per thread: exact on one thread, and no counter that several cores contend for.
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe by nature; the library itself forbids it"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// What a piece of code allocated on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocated {
    /// Calls of the allocator for new or larger memory.
    pub(crate) calls: u64,
    /// Bytes that are still held.
    pub(crate) bytes: i64,
}

/// Counts what `code` allocates on this thread.
pub(crate) fn counted<T>(code: impl FnOnce() -> T) -> (T, Allocated) {
    let (calls, bytes) = (CALLS.get(), BYTES.get());
    let given = code();
    let allocated = Allocated {
        calls: CALLS.get() - calls,
        bytes: BYTES.get() - bytes,
    };
    (given, allocated)
}

fn note(calls: u64, bytes: i64) {
    CALLS.set(CALLS.get() + calls);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: all is passed on to the system's allocator; the counters neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as i64 - layout.size() as i64);
        unsafe { System.realloc(memory, layout, size) }
    }
}
