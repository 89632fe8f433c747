//! The body of a shared response: its frames, its limits and its readers' places.
//!
//! A body that outgrows `max_body` is held as a **window**: its latest part, for readers that have joined before.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `shared_buffer` | [`SharedBuffer`]: what the source has given, and which reader may read which part of it |
//! | `readers` | who reads, how far each has come, and who sets the pace |
//! | `frames` | the frames that are held, and what each was charged |
//! | `complete` | a body that has ended, which is read without a lock |
//! | `compact` | small frames, copied out of the large buffers that they were cut from |
//! | `prefix` | the digest of a body so far, by which a reader that moves on knows the same body again |
//! | `budget` | `max_buffered`: the bytes of all buffers together |

mod budget;
mod compact;
mod complete;
mod frames;
mod prefix;
mod readers;
mod shared_buffer;

pub(crate) use self::{
    budget::Budget,
    complete::CompleteBody,
    prefix::{Prefix, PrefixHasher},
    readers::ReaderId,
    shared_buffer::{Limits, Read, Room, SharedBuffer},
};
