//! A follower that waits for its head.
//!
//! It keeps its own request, and an instance of the inner service, for the case that it must make its own call. Both lie
//! where the flight can reach them, so that the verdict itself can move it into another flight, polled or not.
//!
//! A waiter's lock nests inside an exchange's, and a flight's state inside it. A waiter whose seat is not there is being
//! boarded, polled or moved by somebody; whoever comes back with a seat finds in `turn` whether it is still the right one.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `state` | what a waiter holds, and how its caller and its flights change that |
//! | `poll` | its turn: drives the flight where that is its part, until something is decided |
//! | `told` | what flights tell it |
//! | `regroup` | its move to the flight of its own variant |

mod poll;
mod regroup;
mod state;
mod told;

pub(crate) use self::state::{Next, Waiter};
