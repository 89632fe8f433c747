//! What work may return.

/// A value that a flight can give to all its callers: any `Clone + Send + Sync + 'static`.
///
/// You never implement it. An error that is not `Clone` goes into an [`Arc`](std::sync::Arc) or a
/// [`SharedError`](crate::SharedError); [`Group::try_run`](crate::Group::try_run) does the former for you.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `Clone + Send + Sync + 'static`, so a flight can't give it to all its callers: wrap its \
               error in an `Arc` (`.map_err(Arc::new)`), or use `Group::try_run`",
    label = "not for several callers",
    note = "a `Group<K, Result<T, Arc<E>>>` takes any error that is `Send + Sync + 'static`",
    note = "the work's future must be `'static` too: clone what it needs, and move the clones into it"
)]
pub trait ShareValue: Clone + Send + Sync + 'static {}

// Otherwise rustc only mentions `Clone` and not what to do.
#[diagnostic::do_not_recommend]
impl<V> ShareValue for V where V: Clone + Send + Sync + 'static {}
