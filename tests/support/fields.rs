//! The names of request fields that the default key leaves out, as the documentation lists them.

/// The fixed ones of a connection.
pub(crate) const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Ids of traces and requests.
pub(crate) const IDS: [&str; 31] = [
    "traceparent",
    "b3",
    "x-request-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "request-id",
    "x-ms-client-request-id",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "sentry-trace",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "uber-trace-id",
    "newrelic",
    "elastic-apm-traceparent",
    "ot-tracer-traceid",
    "ot-tracer-spanid",
    "ot-tracer-sampled",
    "cf-ray",
    "x-amz-cf-id",
    "x-azure-ref",
    "x-varnish",
    "x-timer",
    "fly-request-id",
    "x-vercel-id",
    "x-unique-id",
    "kong-request-id",
    "x-request-start",
    "x-queue-start",
];
