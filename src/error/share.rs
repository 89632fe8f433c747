//! `ShareError`.

use std::{convert::Infallible, fmt, mem, sync::Arc};

use super::{BoxError, SharedError};

/// An error of the inner service that every caller of a flight can get.
///
/// Implemented for [`Arc<E>`](Arc), [`SharedError`], Tower's `BoxError` and [`Infallible`]. For any other error type,
/// put a `map_err` below the layer:
///
/// ```
/// use std::{io, sync::Arc};
/// use tower::ServiceBuilder;
/// use tower_singleflight::SingleflightLayer;
///
/// let stack = ServiceBuilder::new()
///     .layer(SingleflightLayer::new())
///     .map_err(|error: io::Error| Arc::new(error));
/// # let _ = stack.into_inner();
/// ```
///
/// `.map_err(tower::BoxError::from)` works too, but in some places rustc then says that an "implementation of
/// `ShareError` is not general enough": see [When it does not compile](crate::guide::does_not_compile).
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be shared between the callers of a flight",
    label = "the inner service's error must be cheap to share",
    note = "put `.map_err(std::sync::Arc::new)` (or `.map_err(tower::BoxError::from)`) below the `SingleflightLayer`"
)]
pub trait ShareError {
    /// A copy of the same error.
    ///
    /// May change how `self` is stored, so that both are alike: a boxed error becomes a box around a [`SharedError`].
    #[must_use]
    fn share(&mut self) -> Self;
}

impl ShareError for Infallible {
    fn share(&mut self) -> Self {
        match *self {}
    }
}

impl ShareError for BoxError {
    fn share(&mut self) -> Self {
        // A zero-sized stand-in: nothing is allocated for it.
        let original = mem::replace(self, Box::new(fmt::Error));
        let shared = SharedError::new(original);
        *self = Box::new(shared.clone());
        Box::new(shared)
    }
}

impl<E: ?Sized> ShareError for Arc<E> {
    fn share(&mut self) -> Self {
        Self::clone(self)
    }
}

impl ShareError for SharedError {
    fn share(&mut self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_shared_box_leads_to_the_original() {
        let mut error: BoxError = io::Error::other("broken").into();
        let copies = [error.share(), error.share(), error];
        for error in &copies {
            assert!(error.is::<SharedError>());
            assert!(SharedError::find::<io::Error>(&**error).is_some());
            assert_eq!(error.to_string(), "broken");
            assert!(
                error
                    .source()
                    .is_some_and(|source| source.is::<io::Error>())
            );
        }
    }
}
