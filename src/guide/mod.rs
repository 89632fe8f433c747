//! Pages of documentation. They exist only where documentation is built or tested.

#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("does_not_compile.md")]
pub mod does_not_compile {}

#[doc = include_str!("not_promised.md")]
pub mod not_promised {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[doc = include_str!("replicas.md")]
pub mod replicas {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}
