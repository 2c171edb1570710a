//! Counts what a thread asks the allocator for, so that a length in the input that asks for
//! gigabytes is seen without having them.
#![allow(unsafe_code, reason = "an allocator that counts, and otherwise is the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    thread::LocalKey,
};

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static GIVEN_BACK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(counter: &'static LocalKey<Cell<usize>>, bytes: usize) {
    // A thread that is ending has no counter any more, and nobody who would read it.
    let _gone = counter.try_with(|count| count.set(count.get().saturating_add(bytes))).is_err();
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ASKED, layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(&GIVEN_BACK, layout.size());
        // SAFETY: the memory came from `alloc`, which is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes of memory that what `make` makes holds on to.
pub fn held<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let (asked, given_back) = (ASKED.get(), GIVEN_BACK.get());
    let made = make();
    (made, (ASKED.get() - asked) - (GIVEN_BACK.get() - given_back))
}

/// Runs `decode` on an input of `input_bytes` and checks what it asks for: at most `factor` times
/// the input and a few pages, all requests added up.
pub fn bounded<T>(input_bytes: usize, factor: usize, decode: impl FnOnce() -> T) -> T {
    let before = ASKED.get();
    let decoded = decode();
    let asked = ASKED.get() - before;
    let most = input_bytes * factor + (64 << 10);
    assert!(asked <= most, "{asked} bytes asked for {input_bytes} bytes of input");
    decoded
}

#[test]
fn asking_for_too_much_is_seen() {
    bounded(10, 8, || vec![0_u8; 1000]);
    assert!(std::panic::catch_unwind(|| bounded(10, 8, || vec![0_u8; 1 << 20])).is_err());
}
