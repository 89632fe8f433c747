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
/// A future of the work's value, or of its error in an [`Arc`]. Otherwise it is as a [`Run`].
#[must_use = "dropping it leaves the flight at once: `.await` it for the result"]
pub struct TryRun<K, T, E> {
    run: Run<K, Result<T, Arc<E>>>,
}

// ===== impl Group =====

impl<K, T, E> Group<K, Result<T, Arc<E>>> {
    /// As [`run`](Self::run), for work that can fail: the key is borrowed, the error is put into an [`Arc`] for you, and
    /// the result can be used with `?`.
    ///
    /// The work must own what it uses: it goes on when its caller leaves. Where rustc says that `self` or the key does not live
    /// long enough, clone it before the closure, and move the clone in.
    ///
    /// Use `run` where you want to know who led: the group is the same. A group whose keys are themselves borrowed, such as
    /// `&'static str`, takes `&"key"`.
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
    /// Awaiting the result gives the work's error, the same `Arc` to every caller of the flight.
    ///
    /// # Cancel safety and panics
    ///
    /// As `run`. A panic of the key's `to_owned` is this caller's alone.
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
