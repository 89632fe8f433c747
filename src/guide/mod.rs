//! Pages of documentation. They exist only where documentation is built or tested.

#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("does_not_compile.md")]
pub mod does_not_compile {}

#[doc = include_str!("replicas.md")]
pub mod replicas {}
