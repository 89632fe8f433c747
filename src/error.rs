//! Errors that several callers can have.

use std::{convert::Infallible, error::Error, fmt, mem, sync::Arc};

/// The error type of Tower's and axum's middleware.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An error of the inner service that can be given to every caller of a flight.
///
/// Implemented for [`BoxError`], [`Arc<E>`](Arc), [`SharedError`] and [`Infallible`]. A service with another error type
/// takes a `map_err` below the layer:
///
/// ```
/// use std::{io, sync::Arc};
/// use tower::ServiceBuilder;
/// use tower_singleflight::SingleflightLayer;
///
/// let stack = ServiceBuilder::new()
///     .layer(SingleflightLayer::new())
///     .map_err(|error: io::Error| Arc::new(error)); // or `tower::BoxError::from`
/// # let _ = stack.into_inner();
/// ```
///
/// # "Implementation of `ShareError` is not general enough"
///
/// So says rustc where an async block that is to be spawned awaits a `oneshot` over a closure that answers with
/// `Ok::<_, BoxError>(..)`. It is a [limitation] of rustc's, which Tower's own `Timeout` meets as well; no implementation
/// of the trait is general enough for it. Make the closure an `async fn`, or box the service, or spawn the future itself:
///
/// ```
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::{Empty, Full};
/// use tower::{BoxError, Layer, ServiceExt, service_fn};
/// use tower_singleflight::SingleflightLayer;
///
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # let _entered = runtime.enter();
/// # let request = Request::new(Empty::<Bytes>::new());
/// let service = service_fn(|_: Request<Empty<Bytes>>| async {
///     Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("page")))
/// });
/// let service = SingleflightLayer::new().layer(service);
/// // Not: tokio::spawn(async move { service.oneshot(request).await })
/// let response = tokio::spawn(service.oneshot(request));
/// # assert!(runtime.block_on(response).unwrap().is_ok());
/// ```
///
/// [limitation]: https://github.com/rust-lang/rust/issues/110338
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be shared between the callers of a flight",
    label = "the inner service's error must be cheap to share",
    note = "put `.map_err(tower::BoxError::from)` or `.map_err(std::sync::Arc::new)` below the `SingleflightLayer`"
)]
pub trait ShareError {
    /// Another one of the same error.
    ///
    /// May change how `self` is held, so that both are alike: a [`BoxError`] becomes a box around a [`SharedError`].
    #[must_use]
    fn share(&mut self) -> Self;
}

/// An error that all callers of a flight have in common. [`source`](Error::source) leads to the original.
///
/// # Finding the original
///
/// **A [`BoxError`] that has passed a flight is always a `SharedError` around the original**, whether or not anybody
/// shared it. So `error.is::<Elapsed>()` is never true of it; [`SharedError::find`] is the remedy:
///
/// ```
/// use tower::{BoxError, timeout::error::Elapsed};
/// use tower_singleflight::{ShareError, SharedError};
///
/// let mut error: BoxError = Elapsed::new().into();
/// let shared = error.share();
/// assert!(!shared.is::<Elapsed>());
/// assert!(SharedError::find::<Elapsed>(&*shared).is_some());
/// ```
///
/// It displays as the original does.
#[derive(Clone)]
pub struct SharedError {
    original: Arc<dyn Error + Send + Sync>,
}

/// A body that was not as long as its response had said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LengthMismatch {
    pub(crate) expected: u64,
    pub(crate) received: u64,
}

/// A follower read a body over `max_body` so slowly that it has to call again, and its request is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FellBehind;

/// A follower called again, and the response is not the one whose beginning it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseChanged;

/// The body ended with trailers that are for the leader alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrivateTrailers;

// ===== impl ShareError =====

impl ShareError for Infallible {
    fn share(&mut self) -> Self {
        match *self {}
    }
}

impl ShareError for BoxError {
    fn share(&mut self) -> Self {
        if let Some(shared) = self.downcast_ref::<SharedError>() {
            return Box::new(shared.clone());
        }
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

// ===== impl SharedError =====

impl SharedError {
    pub(crate) fn new(original: impl Into<BoxError>) -> Self {
        let original = original.into();
        match original.downcast::<Self>() {
            Ok(shared) => *shared,
            Err(original) => Self {
                original: original.into(),
            },
        }
    }

    /// The first error of type `E` along `error`'s chain of [`source`](Error::source)s, `error` itself included.
    #[must_use]
    pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            // `Arc`'s own `source` skips what it holds.
            if let Some(found) = error.downcast_ref::<Arc<E>>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedError").field(&self.original).finish()
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.original, f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.original)
    }
}

// ===== impl LengthMismatch =====

impl fmt::Display for LengthMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, received } = self;
        write!(
            f,
            "the response announced a body of {expected} bytes, its source gave {received}"
        )
    }
}

impl Error for LengthMismatch {}

// ===== impl FellBehind =====

impl fmt::Display for FellBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this copy of a body larger than `max_body` was read too slowly")
    }
}

impl Error for FellBehind {}

// ===== impl ResponseChanged =====

impl fmt::Display for ResponseChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response changed while its body was read too slowly")
    }
}

impl Error for ResponseChanged {}

// ===== impl PrivateTrailers =====

impl fmt::Display for PrivateTrailers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body's trailers are for another caller alone")
    }
}

impl Error for PrivateTrailers {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_box_leads_to_the_original() {
        let mut error: BoxError = Box::new(FellBehind);
        let copy = error.share();
        for error in [&error, &copy] {
            assert!(error.is::<SharedError>());
            assert!(SharedError::find::<FellBehind>(&**error).is_some());
            assert_eq!(error.to_string(), FellBehind.to_string());
        }
    }

    #[test]
    fn sharing_twice_does_not_wrap_twice() {
        let mut error: BoxError = Box::new(FellBehind);
        let _ = error.share();
        let _ = error.share();
        assert!(
            error
                .source()
                .is_some_and(|original| original.is::<FellBehind>())
        );
    }

    #[test]
    fn an_error_inside_an_arc_is_found() {
        let error: BoxError = Box::new(Arc::new(FellBehind));
        assert!(SharedError::find::<FellBehind>(&*error).is_some());
    }
}
