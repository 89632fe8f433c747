//! What is allocated, and how much memory is alive. A binary of its own, because the global allocator counts.
#![allow(unsafe_code, reason = "an allocator that counts")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod buffer_body;
mod group;
#[cfg(feature = "http")]
mod requests;
#[cfg(feature = "http")]
mod unshareable;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Counting;

thread_local! {
    static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: `System` does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        PEAK.fetch_max(live, Ordering::SeqCst);
        // The thread may be ending.
        let _ = ALLOCATED.try_with(|allocated| {
            let (times, bytes) = allocated.get();
            allocated.set((times + 1, bytes + layout.size()));
        });
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time, since they count together.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// How often this thread has allocated, and how many bytes. Tests that look at nothing else need not be alone.
#[cfg(feature = "http")]
fn allocated() -> (usize, usize) {
    ALLOCATED.get()
}

/// Bytes that are allocated now.
fn live() -> usize {
    LIVE.load(Ordering::SeqCst)
}

/// The most bytes that were allocated at a time since the last [`reset_peak`].
#[cfg(feature = "http")]
fn peak() -> usize {
    PEAK.load(Ordering::SeqCst)
}

/// Gives the bytes that are allocated now.
#[cfg(feature = "http")]
fn reset_peak() -> usize {
    let live = live();
    PEAK.store(live, Ordering::SeqCst);
    live
}
