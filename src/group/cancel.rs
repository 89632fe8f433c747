//! Drops work that nobody waits for any more.

use std::{cell::RefCell, panic::resume_unwind, pin::Pin};

use super::{panic::caught, work::Work};

/// How deep drops of work may nest before the rest is left to the outermost one.
const DEPTH: usize = 32;

thread_local! {
    static CANCELLING: RefCell<Cancelling> = const {
        RefCell::new(Cancelling {
            depth: 0,
            aside: Vec::new(),
        })
    };
}

struct Cancelling {
    depth: usize,
    aside: Vec<Pin<Box<dyn Send>>>,
}

/// Drops work. It may hold the last caller of another flight, whose work is then dropped too, and so on. The stack
/// stays bounded however long this chain is, and all of it has been dropped when the outermost call returns.
pub(super) fn cancel<V>(work: Work<V>) {
    let mut next = Some(work.erase());
    let entered = CANCELLING.try_with(|cancelling| {
        let mut cancelling = cancelling.borrow_mut();
        if cancelling.depth == DEPTH {
            cancelling.aside.extend(next.take());
        } else {
            cancelling.depth += 1;
        }
        cancelling.depth
    });
    let Ok(depth) = entered else {
        // The thread is ending.
        return drop(next);
    };
    if next.is_none() {
        return;
    }
    let mut panic = None;
    // A panic stops no other drop. The first one goes on afterwards.
    while let Some(work) = next {
        panic = panic.or(caught(|| drop(work)).err());
        next = match depth {
            1 => CANCELLING.with_borrow_mut(|cancelling| cancelling.aside.pop()),
            _ => None,
        };
    }
    CANCELLING.with_borrow_mut(|cancelling| cancelling.depth -= 1);
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}
