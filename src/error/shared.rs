//! `SharedError`.

use std::{error::Error, fmt, sync::Arc};

use super::BoxError;

/// An error that all callers of a flight share. [`source`](Error::source) leads to the original.
///
/// It displays as the original does.
///
/// # Finding the original
///
/// **A `Box<dyn Error + Send + Sync>` that passes a flight of the layer is always a `SharedError` around the original
/// afterwards**, whether or not anybody shared it. So `error.is::<Elapsed>()` is never true of it. Use
/// [`SharedError::find`]:
///
/// ```
/// # use std::{error::Error, fmt};
/// # #[derive(Debug)]
/// # struct Elapsed;
/// # impl fmt::Display for Elapsed {
/// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("elapsed") }
/// # }
/// # impl Error for Elapsed {}
/// use tower_singleflight::SharedError;
///
/// let error: Box<dyn Error + Send + Sync> = SharedError::new(Elapsed).into();
/// assert!(!error.is::<Elapsed>());
/// assert!(SharedError::find::<Elapsed>(&*error).is_some());
/// ```
///
/// # In a `Group`
///
/// As the error of work that fails in several ways, where `Arc<E>` would need one type for all:
///
/// ```
/// use tower_singleflight::{Group, SharedError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let group: Group<&str, Result<u16, SharedError>> = Group::new();
/// let outcome = group.run("port", || async {
///     let text = std::fs::read_to_string("no such file").map_err(SharedError::new)?;
///     text.trim().parse().map_err(SharedError::new)
/// });
/// let error = outcome.await.value.unwrap_err();
/// assert!(SharedError::find::<std::io::Error>(&error).is_some());
/// # }
/// ```
#[derive(Clone)]
pub struct SharedError {
    original: Arc<dyn Error + Send + Sync>,
}

// ===== impl SharedError =====

impl SharedError {
    /// Wraps an error or a text so that it can be cloned. Returns a boxed `SharedError` as it is.
    #[must_use]
    pub fn new(original: impl Into<BoxError>) -> Self {
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

#[cfg(test)]
mod tests {
    use std::num::ParseIntError;

    use super::*;

    fn original() -> ParseIntError {
        "not a number".parse::<u8>().unwrap_err()
    }

    #[test]
    fn a_shared_error_leads_to_the_original_and_displays_as_it_does() {
        let shared = SharedError::new(original());
        for error in [&shared, &shared.clone()] {
            assert_eq!(SharedError::find(error), Some(&original()));
            assert_eq!(error.to_string(), original().to_string());
        }
        assert_eq!(SharedError::new("broken").to_string(), "broken");
    }

    #[test]
    fn sharing_twice_does_not_wrap_twice() {
        let boxed: BoxError = SharedError::new(original()).into();
        let again = SharedError::new(boxed);
        assert!(
            again
                .source()
                .is_some_and(|source| source.is::<ParseIntError>())
        );
    }

    #[test]
    fn an_error_inside_an_arc_is_found() {
        let error: BoxError = Box::new(Arc::new(original()));
        assert_eq!(SharedError::find(&*error), Some(&original()));
    }
}
