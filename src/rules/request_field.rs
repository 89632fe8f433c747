//! What the key and the rules tell apart among request fields, and so which ones the default key leaves out.

/// A request field. Each name is looked up once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestField {
    Accept,
    Authorization,
    CacheControl,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    ProxyAuthorization,
    TransferEncoding,
    Upgrade,
    /// Another field that describes the connection. `Proxy-Authorization` is not one: it identifies the client.
    HopByHop,
    /// The default key leaves it out: a trace or request id, the proxies on the way, or the client's description of
    /// itself. By convention it carries neither identity nor representation.
    Conventional,
    Other,
}

impl RequestField {
    /// By length first: that rules out most names.
    ///
    /// Keep in sync with the table in the documentation of `RequestKeyExtractor`, and with the list in the tests of
    /// `key/ignored.rs`.
    #[inline(never)]
    pub(crate) fn of(name: &str) -> Self {
        let name = name.as_bytes();
        let is_conventional = match name.len() {
            2 if name == b"te" => return Self::HopByHop,
            2 => name == b"b3",
            3 => name == b"via",
            4 if name == b"host" => return Self::Host,
            6 if name == b"accept" => return Self::Accept,
            6 if name == b"cookie" => return Self::Cookie,
            6 if name == b"expect" => return Self::Expect,
            6 => name == b"cf-ray",
            7 if name == b"upgrade" => return Self::Upgrade,
            7 if name == b"trailer" => return Self::HopByHop,
            7 => name == b"referer" || name == b"x-timer",
            8 => name == b"priority" || name == b"newrelic",
            9 if name == b"forwarded" => return Self::Forwarded,
            9 => name == b"x-real-ip" || name == b"x-varnish",
            10 if name == b"connection" => return Self::Connection,
            10 if name == b"keep-alive" => return Self::HopByHop,
            10 => name == b"user-agent" || name == b"request-id",
            11 => matches!(
                name,
                b"traceparent" | b"x-amz-cf-id" | b"x-azure-ref" | b"x-vercel-id" | b"x-unique-id"
            ),
            12 => name == b"x-request-id" || name == b"sentry-trace",
            13 if name == b"authorization" => return Self::Authorization,
            13 if name == b"cache-control" => return Self::CacheControl,
            13 => name == b"uber-trace-id" || name == b"x-queue-start",
            14 if name == b"content-length" => return Self::ContentLength,
            14 => name == b"fly-request-id",
            15 => matches!(
                name,
                b"x-forwarded-for"
                    | b"x-amzn-trace-id"
                    | b"amz-sdk-request"
                    | b"kong-request-id"
                    | b"x-request-start"
            ),
            16 if name == b"proxy-connection" => return Self::HopByHop,
            16 => name == b"x-correlation-id" || name == b"ot-tracer-spanid",
            17 if name == b"transfer-encoding" => return Self::TransferEncoding,
            17 => name == b"ot-tracer-traceid" || name == b"ot-tracer-sampled",
            18 => name == b"x-datadog-trace-id",
            19 if name == b"proxy-authorization" => return Self::ProxyAuthorization,
            19 => name == b"x-datadog-parent-id",
            21 => name == b"x-cloud-trace-context" || name == b"amz-sdk-invocation-id",
            22 => name == b"x-ms-client-request-id",
            23 => name == b"elastic-apm-traceparent",
            25 => name == b"upgrade-insecure-requests",
            27 => name == b"x-datadog-sampling-priority",
            _ => false,
        };
        let family = || match name {
            [b's', b'e', b'c', b'-', rest @ ..] => {
                rest.starts_with(b"ch-") || rest.starts_with(b"fetch-")
            }
            [b'x', b'-', b'b', b'3', b'-', ..] => true,
            _ => false,
        };
        if is_conventional || family() {
            Self::Conventional
        } else {
            Self::Other
        }
    }
}
