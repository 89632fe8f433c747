//! Request coalescing for Tower.
#![forbid(unsafe_code)]
