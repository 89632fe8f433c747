//! The bounds on the inner service, in one place.

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::error::{BoxError, ShareError};

/// An inner service.
pub(crate) trait Inner<ReqBody, ResBody>:
    Service<
        Request<ReqBody>,
        Response = Response<ResBody>,
        Future: Send + 'static,
        Error: ShareError + Send + Sync + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S, ReqBody, ResBody> Inner<ReqBody, ResBody> for S where
    S: Service<
            Request<ReqBody>,
            Response = Response<ResBody>,
            Future: Send + 'static,
            Error: ShareError + Send + Sync + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// The body of its responses.
pub(crate) trait InnerBody:
    Body<Data: Send, Error: Into<BoxError>> + Send + 'static
{
}

impl<B> InnerBody for B where B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static {}
