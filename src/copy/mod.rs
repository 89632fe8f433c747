//! The shared copy of a response body: its frames, its limits and its readers' places.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `tape` | what the source has given, and who may read which part of it |
//! | `reel` | the frames that are held, and what each was charged |
//! | `packer` | small frames, copied out of the large buffers that they were cut from |
//! | `budget` | `max_buffered`: the bytes of all copies together |

mod budget;
mod packer;
mod reel;
mod tape;

pub(crate) use self::{
    budget::Budget,
    tape::{Cursor, Limits, Read, Tape},
};
