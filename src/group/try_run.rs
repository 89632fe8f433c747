//! Work that can fail, whose error need not be `Clone`.

use std::{
    fmt,
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{run::Run, singleflight::Group, value::ShareValue};

/// A caller's part in a flight whose work can fail, made by [`Group::try_run`](super::Group::try_run).
///
/// A future of the work's value, or of its error in an [`Arc`]. Otherwise it is like a [`Run`].
#[must_use = "dropping it leaves the flight at once: `.await` it for the result"]
pub struct TryRun<K, T, E> {
    run: Run<K, Result<T, Arc<E>>>,
}

// ===== impl Group =====

impl<K, T, E> Group<K, Result<T, Arc<E>>> {
    /// As [`run`](Self::run), for work that can fail: it borrows the key, puts the error into an [`Arc`] for you, and
    /// its result works with `?`.
    ///
    /// The work must own what it uses, because it goes on when its caller leaves. If rustc says that `self` or the key
    /// does not live long enough, clone it before the closure and move the clone in.
    ///
    /// To know who led, use `run` on the same group. If the group's keys are themselves borrowed, such as `&'static
    /// str`, pass `&"key"`.
    ///
    /// ```
    /// use std::{error::Error, io, sync::Arc};
    /// use tower_singleflight::Group;
    ///
    /// async fn load(name: String) -> io::Result<String> {
    ///     Ok(format!("the page {name}"))
    /// }
    ///
    /// async fn page(
    ///     group: &Group<String, Result<String, Arc<io::Error>>>,
    ///     name: &str,
    /// ) -> Result<String, Box<dyn Error + Send + Sync>> {
    ///     Ok(group.try_run(name, || load(name.to_owned())).await?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let group = Group::new();
    /// assert_eq!(page(&group, "home").await.unwrap(), "the page home");
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Awaiting the result returns the work's error, the same `Arc` for every caller of the flight.
    ///
    /// # Cancel safety and panics
    ///
    /// As `run`. A panic of the key's `to_owned` affects only this caller.
    pub fn try_run<Q, F, Fut>(&self, key: &Q, work: F) -> TryRun<K, T, E>
    where
        K: Hash + Eq + Send + 'static,
        Q: ToOwned<Owned = K> + ?Sized,
        T: ShareValue,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let run = self.run(key.to_owned(), || {
            let work = work();
            async { work.await.map_err(Arc::new) }
        });
        TryRun { run }
    }
}

// ===== impl TryRun =====

impl<K, T, E> Future for TryRun<K, T, E>
where
    K: Send + 'static,
    T: ShareValue,
    E: Send + Sync + 'static,
{
    type Output = Result<T, Arc<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.run)
            .poll(cx)
            .map(|outcome| outcome.value)
    }
}

impl<K, T, E> fmt::Debug for TryRun<K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryRun").field(&self.run).finish()
    }
}
