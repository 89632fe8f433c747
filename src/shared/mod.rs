//! What all requests of a layer and of its clones share, beside the flights.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `unshareable` | the keys whose responses may not be shared |
//! | `write_target` | which URIs are one, for a write |
//! | `writes` | which of them were written, and when |

mod unshareable;
mod write_target;
mod writes;

pub(crate) use self::{
    unshareable::UnshareableKeys,
    write_target::{HostHash, Resource, WriteTarget},
    writes::WriteEpochs,
};
